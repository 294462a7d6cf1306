"""The app's registration."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """What may be spent."""

    name = "billing"
    verbose_name = "Billing"
    default_auto_field = "django.db.models.BigAutoField"

"""The app's registration."""

from django.apps import AppConfig


class EnforcementConfig(AppConfig):
    """From a request to a decision and its proof."""

    name = "enforcement"
    verbose_name = "Enforcement"
    default_auto_field = "django.db.models.BigAutoField"

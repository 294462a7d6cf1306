"""The app's registration."""

from django.apps import AppConfig


class GovernanceConfig(AppConfig):
    """What is allowed, and who is who."""

    name = "governance"
    verbose_name = "Governance"
    default_auto_field = "django.db.models.BigAutoField"

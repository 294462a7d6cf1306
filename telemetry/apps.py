"""The app of telemetry."""

from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    """What was observed; a sibling of everything that is true."""

    name = "telemetry"
    verbose_name = "Telemetry"
    default_auto_field = "django.db.models.BigAutoField"

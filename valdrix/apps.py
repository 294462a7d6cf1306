"""The project as an app: commands over all apps, and start-up checks."""

from django.apps import AppConfig


class ValdrixConfig(AppConfig):
    """Composition of the apps."""

    name = "valdrix"
    verbose_name = "Valdrix"

    def ready(self) -> None:
        """Register the system checks, and bind the emitter."""
        from valdrix import checks  # noqa: F401 - registering is the import's purpose
        from valdrix.emitting import bind_emitter

        bind_emitter()

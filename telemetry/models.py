"""The app's tables."""

from telemetry.events.models import Event, Switch

__all__ = ("Event", "Switch")

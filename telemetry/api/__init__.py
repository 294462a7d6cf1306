"""The doors of telemetry over HTTP: readings, below ``/api/v1/telemetry/``."""

"""Telemetry: what was observed, best effort. It decides nothing and may be deleted at any time."""

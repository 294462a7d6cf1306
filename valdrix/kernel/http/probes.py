"""Probes: the paths that tell how a process is, which are answered whatever else is not."""

from __future__ import annotations

from typing import Final

PROBES: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Whole paths: what only begins like one is a request like any other."""

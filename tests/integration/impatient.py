"""Gunicorn's settings for tests of slow peers: as they are shipped, with less patience."""

from __future__ import annotations

import struct
from typing import Any

from valdrix import gunicorn_conf, gunicorn_connections
from valdrix.gunicorn_conf import *  # noqa: F403 - a file of settings

SECONDS = 1.5
THREADS = 3

workers = 1
threads = THREADS


def on_starting(server: Any) -> None:
    """Begin as ever, in a process that waits less for its peers."""
    gunicorn_connections.RECEIVE_SECONDS = SECONDS  # type: ignore[misc]
    gunicorn_connections._STALL = struct.pack("@ll", 1, 500_000)  # type: ignore[misc]
    gunicorn_conf.on_starting(server)

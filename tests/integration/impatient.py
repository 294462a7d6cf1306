"""Gunicorn's settings for tests of slow peers: as they are shipped, with less patience."""

from __future__ import annotations

import struct

from valdrix import gunicorn_connections
from valdrix.gunicorn_conf import *  # noqa: F403 - a file of settings

SECONDS = 1.5
THREADS = 3

gunicorn_connections.RECEIVE_SECONDS = SECONDS
gunicorn_connections._STALL = struct.pack("@ll", 1, 500_000)
workers = 1
threads = THREADS

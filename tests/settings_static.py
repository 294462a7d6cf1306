"""Settings for the type checker: Valdrix's own, with an environment that names no real server."""

from __future__ import annotations

import os

os.environ.setdefault("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
os.environ.setdefault("DATABASE_OWNER_URL", "postgresql://nobody@127.0.0.1:1/nothing")
os.environ.setdefault("DJANGO_SECRET_KEY", "read by the type checker, which signs nothing")

from valdrix.settings import *  # noqa: F403 - the environment has to be complete first

"""Health: whether this process lives, and whether it can serve (SPEC 16)."""

from __future__ import annotations

import functools
import logging
import platform
import threading
from typing import Final

import django
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.migrations.loader import MigrationLoader
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from valdrix.kernel.db import platform_transaction, time_limit
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.problems import Refused

_ANSWER_WITHIN_MS: Final = "2000"
_WITHIN_SECONDS: Final = 2.5
"""A little more than the server's own limit, which leaves a connection that can be used again."""
_AT_ONCE: Final = 4
_WAIT_SECONDS: Final = 0.25
"""Anybody may ask, and no load is shed here: so many threads wait for the database, others hardly."""
_SHOWN_MIGRATIONS: Final = 5
_STATUS_SCHEMA: Final = {
    "type": "object",
    "properties": {"status": {"type": "string", "const": "ok"}},
    "required": ["status"],
}
_HEALTH_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "const": "ok"},
        "version": {"type": "string"},
        "runtime": {
            "type": "object",
            "properties": {
                name: {"type": "string"}
                for name in ("database_engine", "database_version", "python", "django")
            },
        },
    },
    "required": ["status", "version", "runtime"],
}

log = logging.getLogger("valdrix.health")
_places = threading.BoundedSemaphore(_AT_ONCE)


class NotReady(Refused):
    """This process cannot serve now (503)."""

    code = "not_ready"


def check_ready() -> str:
    """Ask the database and compare its schema with this release's; return its version.

    A schema newer than this release is served: during a deployment old and new run together.

    :raises NotReady: when it does not answer in time, or lacks a migration.
    """
    version, applied = _ask_database_or_refuse()
    pending = sorted(_expected_migrations() - applied)
    if pending:
        names = ", ".join(f"{app}.{name}" for app, name in pending[:_SHOWN_MIGRATIONS])
        log.error("not ready: migrations are pending: %s", names)
        raise NotReady(
            f"The database's schema is older than this release: {len(pending)} migrations are"
            f" pending, such as {names}. Run manage.py migrate."
        )
    return version


def find_pending_migrations() -> frozenset[tuple[str, str]]:
    """Return the migrations of this release that the database lacks, each by app and name.

    :raises NotReady: when the database does not answer in time.
    """
    return _expected_migrations() - _ask_database_or_refuse()[1]


def _ask_database_or_refuse() -> tuple[str, frozenset[tuple[str, str]]]:
    if not _places.acquire(timeout=_WAIT_SECONDS):
        raise NotReady(
            "The database has not answered those who asked before."
        ) from OperationalError()
    try:
        with time_limit(_WITHIN_SECONDS):
            return _ask_database()
    except (DatabaseError, InterfaceError) as error:
        kind = type(error).__name__
        log.error("not ready, no answer: %s", kind)  # noqa: TRY400 - asked every few seconds
        raise NotReady("The database does not answer.") from error
    finally:
        _places.release()


def _ask_database() -> tuple[str, frozenset[tuple[str, str]]]:
    with platform_transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [_ANSWER_WITHIN_MS])
        cursor.execute(
            "SELECT current_setting('server_version'), to_regclass('django_migrations') IS NULL"
        )
        version, is_empty = cursor.fetchone()
        if is_empty:
            return version, frozenset()
        cursor.execute("SELECT app, name FROM django_migrations")
        return version, frozenset(cursor.fetchall())


@functools.cache
def _expected_migrations() -> frozenset[tuple[str, str]]:
    loader = MigrationLoader(None, ignore_no_migrations=True)
    return frozenset(loader.graph.nodes)


class _PublicView(ApiView):
    authentication_classes = ()
    permission_classes = (AllowAny,)


class LiveView(_PublicView):
    """Whether the process answers at all."""

    @extend_schema(operation_id="health_live", tags=["health"], responses={200: _STATUS_SCHEMA})
    def get(self, request: Request) -> Response:
        """Answer without asking the database: a restart would not bring that back."""
        return Response({"status": "ok"})


class ReadyView(_PublicView):
    """Whether the process can serve."""

    @extend_schema(operation_id="health_ready", tags=["health"], responses={200: _STATUS_SCHEMA})
    def get(self, request: Request) -> Response:
        """Answer 200 when the database answers and has every migration, 503 otherwise."""
        check_ready()
        return Response({"status": "ok"})


class HealthView(_PublicView):
    """What runs here."""

    @extend_schema(operation_id="health", tags=["health"], responses={200: _HEALTH_SCHEMA})
    def get(self, request: Request) -> Response:
        """Answer as readiness does, with the versions of what runs."""
        version = check_ready()
        runtime = {
            "database_engine": "postgresql",
            "database_version": version,
            "python": platform.python_version(),
            "django": django.get_version(),
        }
        return Response(
            {
                "status": "ok",
                "version": settings.SPECTACULAR_SETTINGS["VERSION"],
                "runtime": runtime,
            }
        )

"""The environment of a test run, complete before Django's settings are read.

Loaded by ``-p tests.plugin`` in pyproject.toml. Without DATABASE_URL the run gets one throw-away
server, which all its processes share: the workers of pytest-xdist inherit the environment.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack

import psycopg
import pytest

from valdrix.embedded.errors import EmbeddedError
from valdrix.embedded.postgres import throwaway_postgres

ADMIN_URL = "VALDRIX_TEST_ADMIN_URL"
"""The superuser's URL, for the few tests of what even the owner's tools cannot do."""

RUN_ID = "VALDRIX_TEST_RUN"
"""Names the run's databases, so that two runs on one server do not drop each other's."""

THROWAWAY = "VALDRIX_TEST_THROWAWAY"
"""Set when the server goes with the run, so that no database has to be dropped."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the server if there is none, and set what settings require."""
    if hasattr(early_config, "workerinput") or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    os.environ.setdefault("DJANGO_SECRET_KEY", secrets.token_urlsafe(50))
    os.environ.setdefault("SECRET_SEALING_KEYS", secrets.token_urlsafe(32))
    # Thousands of tests call from one address; limits are theirs who set them.
    os.environ.setdefault("RATE_LIMIT_PER_MINUTE", "1000000")
    os.environ.setdefault("TENANT_API_PER_MINUTE", "6000000")
    os.environ.setdefault("ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP", "100000")
    os.environ.setdefault("ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP", "10000000")
    if not os.environ.get("THROTTLE_DIRECTORY"):
        counts = os.environ["THROTTLE_DIRECTORY"] = tempfile.mkdtemp(prefix="valdrix-test-")
        early_config.add_cleanup(lambda: shutil.rmtree(counts, ignore_errors=True))
    os.environ[RUN_ID] = str(os.getpid())
    # Tests of telemetry bind writers of their own; what is written in passing would outlive a test.
    os.environ["TELEMETRY_ENABLED"] = "false"
    if os.environ.get("DATABASE_URL"):
        if not os.environ.get("DATABASE_OWNER_URL"):
            raise pytest.UsageError(
                "DATABASE_URL is set and DATABASE_OWNER_URL is not: the tests make their "
                "databases as the owner. Unset both to get a throw-away server."
            )
        return
    with ExitStack() as stack:
        try:
            server = stack.enter_context(throwaway_postgres())
        except EmbeddedError as error:
            raise pytest.UsageError(f"no PostgreSQL for the tests: {error}") from error
        os.environ.update(server.environment())
        os.environ[ADMIN_URL] = server.admin_url
        os.environ[THROWAWAY] = "1"
        early_config.add_cleanup(stack.pop_all().close)


def pytest_report_header() -> str:
    """Tell which server the tests run on."""
    with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=10) as connection:
        version = connection.info.parameter_status("server_version")
        user = connection.info.user
    kind = "throw-away" if os.environ.get(THROWAWAY) else "given"
    return f"postgresql: {version} ({kind}), tests run as {user}"

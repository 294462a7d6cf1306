"""Fixtures: a real database, a client over HTTP, and for every test tenants of its own.

Nothing is rolled back and nothing is flushed: tests commit, as the application does, and stay out
of each other's way because no two use the same tenant.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection, connections
from django.test.utils import setup_databases, teardown_databases
from pytest_django import DjangoDbBlocker
from whitenoise.middleware import WhiteNoiseMiddleware

from tests import plugin
from tests.client import Api
from tests.factories.tenants import World, create_world
from tests.threads import run_in_threads as _run_in_threads

PURE = Path(__file__).parent / "unit"
"""Tests below this directory get a database only if they ask for one by a fixture."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what gets longer by what other tests leave, then what is long.

    The marker that would wrap a test in a transaction and roll it back is refused.
    """
    items.sort(key=_turn)
    for item in items:
        if item.get_closest_marker("django_db"):
            raise pytest.UsageError(
                f"{item.nodeid} is marked django_db: tests commit for real. "
                "Use the fixture `tenant`, or `database` for no tenant."
            )


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over the thousands of tests, which live to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Let probes of servers that tests have ended say nothing more: nobody captures the log now."""
    logging.getLogger("valdrix.database").disabled = True


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("first"):
        return 0
    return 1 if item.get_closest_marker("slow") else 2


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Name this process's database after the run and, under xdist, the worker."""
    owner = settings.DATABASES["owner"]
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    name = f"test_{owner['NAME']}_{os.environ[plugin.RUN_ID]}_{worker}"
    # Django lets every other alias wait for "default", which here is only a mirror of "owner".
    owner.setdefault("TEST", {}).update(NAME=name, DEPENDENCIES=[])


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[None]:
    """Make and migrate the database as its owner; ``default`` then connects to it as the app."""
    with django_db_blocker.unblock():
        made = setup_databases(
            verbosity=0, interactive=False, aliases=["owner", "default"], serialized_aliases=set()
        )
        connections.close_all()
    yield
    with django_db_blocker.unblock():
        connections.close_all()
        if not os.environ.get(plugin.THROWAWAY):
            teardown_databases(made, verbosity=0)


@pytest.fixture(scope="session", autouse=True)
def _static_files_are_found_once() -> Iterator[None]:
    """Find the static files once a process, as a server does: every client builds its own stack."""
    find, found = WhiteNoiseMiddleware.add_files_from_finders, {}

    def take(middleware: WhiteNoiseMiddleware) -> None:
        if middleware.static_prefix not in found:
            find(middleware)
            found[middleware.static_prefix] = dict(middleware.files)
        middleware.files.update(found[middleware.static_prefix])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", take)
        yield


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let the test use the database, as the application's role."""
    with django_db_blocker.unblock():
        yield
        assert not connection.in_atomic_block, "the test left a transaction open"


@pytest.fixture(autouse=True)
def _database_unless_pure(request: pytest.FixtureRequest) -> None:
    if PURE not in request.path.parents:
        request.getfixturevalue("database")


@pytest.fixture
def tenant(database: None) -> World:
    """Give a fresh tenant with an owner, an admin and a member, each with an API key."""
    return create_world()


@pytest.fixture
def other_tenant(database: None) -> World:
    """Give a second fresh tenant, to look at from the first."""
    return create_world()


@pytest.fixture
def make_tenant(database: None) -> Callable[[], World]:
    """Give a function that makes one more fresh tenant."""
    return create_world


@pytest.fixture
def api(database: None) -> Api:
    """Give a client that sends requests through the whole WSGI stack."""
    return Api()


@pytest.fixture
def run_in_threads(database: None) -> Callable[..., list[object]]:
    """Give ``run(n, function)``: n threads start together, each calls ``function(number)``."""
    return _run_in_threads


@pytest.fixture
def owner_cursor(database: None) -> Iterator[psycopg.Cursor]:
    """Give a cursor of the tables' owner in autocommit mode, for tampering and for catalogues."""
    with psycopg.connect(owner_dsn(), autocommit=True) as opened, opened.cursor() as cursor:
        yield cursor


@pytest.fixture
def superuser_dsn(database: None) -> str:
    """Give the superuser's connection string to the test database, or skip without one."""
    url = os.environ.get(plugin.ADMIN_URL)
    if not url:
        pytest.skip(f"the server's superuser is not known: set {plugin.ADMIN_URL}")
    return psycopg.conninfo.make_conninfo(url, dbname=connection.settings_dict["NAME"])


def owner_dsn() -> str:
    """Return the owner's connection string to the test database."""
    return psycopg.conninfo.make_conninfo(
        os.environ["DATABASE_OWNER_URL"], dbname=connections["owner"].settings_dict["NAME"]
    )

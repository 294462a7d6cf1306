"""The embedded PostgreSQL: durable, shared by live processes, and never in another clone's way."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from valdrix.embedded import binaries, places, postmaster
from valdrix.embedded.account import server_account
from valdrix.embedded.environment import embedded_environment, load_secrets
from valdrix.embedded.errors import (
    BinariesNotFound,
    EmbeddedError,
    MajorVersionMismatch,
    NotDurable,
    ServerDidNotStart,
)
from valdrix.embedded.postgres import EmbeddedPostgres, attach, throwaway_postgres
from valdrix.embedded.record import FILE_NAME

PROJECT = places.project_directory()
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="an account can only be dropped to by root")


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedPostgres]:
    """Give one server for the tests that only look."""
    with throwaway_postgres() as server:
        yield server


@pytest.fixture
def clone() -> Iterator[Path]:
    """Give a directory that every account can enter, as most clones are."""
    directory = Path(tempfile.mkdtemp(prefix="valdrix-test-clone-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        for record in directory.glob("**/postgres.json"):
            EmbeddedPostgres(record.parent).stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """Give the state directory of a server that was set up and stopped: copying one is cheaper."""
    directory = Path(tempfile.mkdtemp(prefix="valdrix-test-made-"))
    directory.chmod(0o755)
    try:
        with attach(directory / ".valdrix"):
            pass
        yield directory / ".valdrix"
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def state(clone: Path, made: Path) -> Path:
    """Give the state directory of a clone that has run before."""
    return copied(made, clone / ".valdrix")


def copied(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def run(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def helper(state: Path, *, body: str) -> subprocess.Popen[str]:
    """Another process that works with the server of `state`; `body` sees `server`."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from valdrix.embedded.postgres import EmbeddedPostgres, attach\n"
        f"server = EmbeddedPostgres(Path({str(state)!r}))\n"
        f"{body}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Durable, private, and with the roles that isolation rests on.


def test_no_setting_can_lose_a_commit(shared: EmbeddedPostgres) -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert ask(shared.app_url, f"SHOW {name}") == "on"


def test_time_and_text_do_not_depend_on_the_machine(shared: EmbeddedPostgres) -> None:
    assert ask(shared.app_url, "SHOW timezone") == "UTC"
    assert ask(shared.app_url, "SHOW server_encoding") == "UTF8"
    assert ask(shared.app_url, "SELECT lower('ÄÖ'), 'Z' < 'a'") == ("äö", True)


def test_only_this_machine_can_connect_and_only_with_the_password(
    shared: EmbeddedPostgres,
) -> None:
    assert ask(shared.app_url, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(shared.admin_url, "SHOW unix_socket_directories") == ""
    stored = ask(
        shared.admin_url,
        "SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256$%') FROM pg_authid WHERE rolcanlogin",
    )
    assert stored is True
    for url in (shared.app_url, shared.owner_url, shared.admin_url):
        user, _, place = url.removeprefix("postgresql://").partition("@")
        name = user.partition(":")[0]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"postgresql://{name}:wrong@{place}")


def test_passwords_are_in_private_files_only(shared: EmbeddedPostgres) -> None:
    state = shared.log.parent.parent
    assert mode(state / "postgres.json") == 0o600
    assert mode(shared.data) == 0o700
    assert not list(shared.data.parent.glob("*password*"))
    password = shared.app_url.split(":")[2].partition("@")[0]
    assert password not in shared.log.read_text()
    pid = (shared.data / "postmaster.pid").read_text().splitlines()[0]
    arguments = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", pid], capture_output=True, text=True, check=True
    ).stdout
    assert "postgres" in arguments
    assert password not in arguments
    if IS_ROOT:
        assert shared.data.stat().st_uid != 0


def test_the_roles_have_the_attributes_that_isolation_rests_on(shared: EmbeddedPostgres) -> None:
    attributes = (
        "SELECT rolcanlogin, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication"
        " FROM pg_roles WHERE rolname = '{}'"
    )
    app = ask(shared.app_url, attributes.format("valdrix_app"))
    owner = ask(shared.app_url, attributes.format("valdrix_owner"))
    assert app == (True, False, False, False, False, False)
    assert owner == (True, False, False, True, False, False)
    database_owner = ask(
        shared.app_url,
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()",
    )
    assert database_owner == "valdrix_owner"
    assert ask(shared.app_url, "SELECT current_user, current_database()") == (
        "valdrix_app",
        "valdrix",
    )


def test_the_application_waits_for_nothing_for_ever(shared: EmbeddedPostgres) -> None:
    settings = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'),"
    settings += " current_setting('idle_in_transaction_session_timeout')"
    assert ask(shared.app_url, settings) == ("2s", "30s", "30s")


def test_the_application_can_use_what_it_is_granted_and_make_nothing(
    shared: EmbeddedPostgres,
) -> None:
    run(shared.owner_url, "CREATE TABLE granted (id int)")
    run(shared.owner_url, "GRANT SELECT ON granted TO valdrix_app")
    assert ask(shared.app_url, "SELECT count(*) FROM granted") == 0
    for statement in (
        "CREATE TABLE own (id int)",
        "CREATE SCHEMA own",
        "CREATE DATABASE own",
        "INSERT INTO granted VALUES (1)",
        "DROP TABLE granted",
        "SET ROLE valdrix_owner",
        "SET session_replication_role = replica",
    ):
        with pytest.raises((psycopg.errors.InsufficientPrivilege,)):
            run(shared.app_url, statement)


# Kept between runs, and shared by live processes.


def test_data_and_addresses_are_kept_between_runs(state: Path) -> None:
    server = EmbeddedPostgres(state)
    server.start()
    server.start()
    url = server.app_url
    run(server.owner_url, "CREATE TABLE kept AS SELECT 7 AS number")
    assert server.is_running()
    server.stop()
    assert not server.is_running()
    server.stop()
    again = EmbeddedPostgres(state)
    again.start()
    assert again.app_url == url
    assert ask(again.owner_url, "SELECT number FROM kept") == 7
    again.stop()


def test_roles_that_an_earlier_release_made_are_brought_up_to_date(state: Path) -> None:
    """A record of before telemetry's role has neither its password nor the file's digest."""
    with attach(state) as server:
        owner_url = server.owner_url
        run(server.admin_url, "DROP OWNED BY valdrix_telemetry")
        run(server.admin_url, "DROP ROLE valdrix_telemetry")
        path = state / FILE_NAME
        record = json.loads(path.read_text())
        del record["passwords"]["telemetry"], record["roles_sha256"]
        path.write_text(json.dumps(record))
        # It need not be stopped for that: another process of the clone may be using it.
        with attach(state) as same:
            password = same.environment()["TELEMETRY_DATABASE_PASSWORD"]
            url = owner_url.replace("valdrix_owner", "valdrix_telemetry").split("@")[1]
            telemetry_url = f"postgresql://valdrix_telemetry:{password}@{url}"
            assert ask(telemetry_url, "SELECT current_user::text") == "valdrix_telemetry"
            assert same.owner_url == owner_url
    with attach(state) as later:
        assert later.environment()["TELEMETRY_DATABASE_PASSWORD"] == password


def test_the_last_user_stops_the_server_and_nobody_else_does(state: Path) -> None:
    with attach(state) as first:
        other = helper(
            state,
            body="server.start(); print(server.port, flush=True); sys.stdin.read(); server.stop()",
        )
        assert other.stdout is not None
        assert int(other.stdout.readline()) == first.port
        url = first.app_url
    assert ask(url, "SELECT 1") == 1
    other.communicate()
    assert other.returncode == 0
    assert not EmbeddedPostgres(state).is_running()


def test_a_killed_user_neither_stops_the_server_nor_keeps_it(state: Path) -> None:
    other = helper(state, body="server.start(); print('up', flush=True); time.sleep(60)")
    assert other.stdout is not None
    assert other.stdout.readline() == "up\n"
    other.kill()
    other.communicate()
    with attach(state) as server:
        assert ask(server.app_url, "SELECT 1") == 1
    assert not EmbeddedPostgres(state).is_running()


def test_processes_that_start_it_at_once_get_one_server(clone: Path) -> None:
    state = clone / ".valdrix"
    body = "server.start(); print(server.port, flush=True); sys.stdin.read(); server.stop()"
    others = [helper(state, body=body) for _ in range(4)]
    with ThreadPoolExecutor(len(others)) as pool:
        ports = set(pool.map(lambda other: other.stdout and other.stdout.readline(), others))
        answers = list(pool.map(lambda other: other.communicate(timeout=60), others))
    assert len(ports) == 1, answers
    assert "" not in ports, answers
    assert [other.returncode for other in others] == [0] * len(others)
    assert not EmbeddedPostgres(state).is_running()


def test_two_clones_run_side_by_side(clone: Path, made: Path) -> None:
    one_state, two_state = copied(made, clone / "a"), copied(made, clone / "b")
    with attach(one_state) as one, attach(two_state) as two:
        assert one.port != two.port
        run(one.owner_url, "CREATE TABLE only_in_one ()")
        assert ask(two.owner_url, "SELECT to_regclass('only_in_one')") is None


# After accidents.


def test_nothing_that_was_committed_is_lost_when_the_server_is_killed(state: Path) -> None:
    with attach(state) as server:
        run(server.owner_url, "CREATE TABLE survivors (id int)")
        url = server.owner_url
        with psycopg.connect(url, autocommit=True) as open_session:
            open_session.execute("INSERT INTO survivors SELECT generate_series(1, 100)")
            kill_server(server)
        assert not server.is_running()
        server.start()
        assert server.owner_url == url
        assert ask(url, "SELECT count(*) FROM survivors") == 100


def kill_server(server: EmbeddedPostgres) -> None:
    running = postmaster.find_running(server.data)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while postmaster.is_alive(running.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_pid_file_that_names_another_live_process_is_not_believed(state: Path) -> None:
    server = EmbeddedPostgres(state)
    server.start()
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert not server.is_running()
    server.start()
    assert ask(server.app_url, "SELECT 1") == 1
    server.stop()


def test_a_copied_clone_and_a_moved_one_have_their_own_server(clone: Path, made: Path) -> None:
    with attach(copied(made, clone / "a")) as original:
        run(original.owner_url, "CREATE TABLE kept AS SELECT 7 AS number")
    copied(clone / "a", clone / "copy")
    with attach(clone / "a") as original:
        # As if it had been copied while it ran: the pid file came along.
        pid_file = original.data / "postmaster.pid"
        shutil.copy(pid_file, clone / "copy" / "pg" / "data" / "postmaster.pid")
        with attach(clone / "copy") as copy:
            assert copy.data != original.data
            assert copy.port != original.port
            assert ask(copy.owner_url, "SELECT number FROM kept") == 7
    (clone / "copy").rename(clone / "moved")
    with attach(clone / "moved") as moved:
        assert moved.data == clone / "moved" / "pg" / "data"
        assert ask(moved.owner_url, "SELECT number FROM kept") == 7


def test_another_major_version_is_refused_and_nothing_is_touched(state: Path) -> None:
    server = EmbeddedPostgres(state)
    server.start()
    server.stop()
    version = server.data / "PG_VERSION"
    version.write_text("14\n")
    before = {path.name for path in server.data.iterdir()}
    with pytest.raises(MajorVersionMismatch, match=r"made by PostgreSQL 14, .* PostgreSQL 18"):
        server.start()
    assert {path.name for path in server.data.iterdir()} == before
    assert not server.is_running()


def test_a_server_that_could_lose_commits_is_not_used(state: Path) -> None:
    server = EmbeddedPostgres(state)
    server.start()
    run(server.admin_url, "ALTER SYSTEM SET fsync = off")
    server.stop()
    server.start()
    assert ask(server.app_url, "SHOW fsync") == "on"
    run(server.admin_url, "ALTER ROLE valdrix_app SET synchronous_commit = off")
    server.stop()
    with pytest.raises(NotDurable, match="synchronous_commit is off, not on"):
        server.start()
    assert not server.is_running()


def test_a_server_that_cannot_start_says_why(state: Path) -> None:
    server = EmbeddedPostgres(state)
    server.start()
    server.stop()
    with (server.data / "postgresql.conf").open("a") as stream:
        stream.write("no_such_setting = 1\n")
    with pytest.raises(ServerDidNotStart, match="no_such_setting"):
        server.start()
    assert not server.is_running()


def test_a_throwaway_server_leaves_nothing() -> None:
    with throwaway_postgres() as server:
        data, state = server.data, server.log.parent.parent
        assert ask(server.app_url, "SHOW fsync") == "on"
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
    assert not data.exists()
    assert not state.exists()
    assert not postmaster.is_alive(pid)


# Where the server's account cannot go, and other people's clones.


@needs_root
def test_a_private_directory_stays_private(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedPostgres(private / "clone" / ".valdrix", throwaway=True)
    (private / "clone").mkdir()
    server.start()
    try:
        assert private not in server.data.parents
        assert ask(server.app_url, "SHOW fsync") == "on"
        assert mode(private) == 0o700
        place = server.data.parent
        server.start()
        assert server.data.parent == place
    finally:
        server.stop()
    assert not place.exists()


@needs_root
def test_programs_in_a_private_environment_are_copied_with_their_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, install = binaries._locate_wheel()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    link = private / package.name
    link.symlink_to(package)
    (private / f"{package.name}.libs").symlink_to(package.with_name(f"{package.name}.libs"))
    cache = Path(tempfile.mkdtemp(prefix="valdrix-test-cache-"))
    cache.chmod(0o755)
    monkeypatch.setattr(binaries, "_locate_wheel", lambda: (link, link / install.name))
    monkeypatch.setattr(binaries, "CACHE_DIRECTORIES", (cache,))
    try:
        found = binaries.find_binaries(server_account(None))
        assert cache in found.bin.parents
        assert server_account(None).run([found.program("psql"), "--version"]).returncode == 0
        assert binaries.find_binaries(server_account(None)) == found
        assert mode(private) == 0o700
    finally:
        shutil.rmtree(cache)


@needs_root
def test_a_directory_that_others_can_write_to_holds_no_programs(tmp_path: Path) -> None:
    open_to_all = Path(tempfile.mkdtemp(prefix="valdrix-test-cache-"))
    open_to_all.chmod(0o777)
    try:
        with pytest.raises(EmbeddedError, match="move the clone out of the private directory"):
            places.shared_directory((open_to_all,), server_account(None))
    finally:
        open_to_all.rmdir()


@needs_root
def test_it_works_as_an_ordinary_user_and_then_for_root(clone: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(clone, nobody.pw_uid, nobody.pw_gid)
    body = (
        "import encodings.idna\n"
        f"os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})\n"
        "server.start(); print(server.data.stat().st_uid, flush=True); server.stop()"
    )
    said, errors = helper(clone / ".valdrix", body=body).communicate(timeout=60)
    assert said == f"{nobody.pw_uid}\n", errors
    with attach(clone / ".valdrix") as server:
        assert ask(server.app_url, "SELECT 1") == 1
        assert (clone / ".valdrix" / "postgres.json").stat().st_uid == nobody.pw_uid
    said, errors = helper(clone / ".valdrix", body=body).communicate(timeout=60)
    assert said == f"{nobody.pw_uid}\n", errors


def test_programs_that_do_not_run_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(binaries.OVERRIDE_VARIABLE, str(tmp_path))
    with pytest.raises(BinariesNotFound, match="postgres cannot be run"):
        binaries.find_binaries(server_account(None))


# The environment that commands get.


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    first = load_secrets(tmp_path)
    assert len(first["DJANGO_SECRET_KEY"]) >= 50
    assert load_secrets(tmp_path) == first
    assert mode(tmp_path / "secrets.env") == 0o600


def test_an_external_database_is_left_as_it_is(tmp_path: Path) -> None:
    environment = {"DATABASE_URL": "postgresql://elsewhere/db"}
    with embedded_environment(tmp_path, environment) as server:
        assert server is None
        assert environment == {"DATABASE_URL": "postgresql://elsewhere/db"}
    assert not list(tmp_path.iterdir())


def test_a_command_gets_the_database_of_the_clone(clone: Path) -> None:
    environment = {"DJANGO_SECRET_KEY": "given"}
    with embedded_environment(clone / ".valdrix", environment) as server:
        assert server is not None
        generated = load_secrets(clone / ".valdrix")
        assert environment == {
            **generated,
            "DJANGO_SECRET_KEY": "given",
            "DATABASE_URL": server.app_url,
            "DATABASE_OWNER_URL": server.owner_url,
            "TELEMETRY_DATABASE_PASSWORD": environment["TELEMETRY_DATABASE_PASSWORD"],
            "VALDRIX_EMBEDDED": "1",
        }

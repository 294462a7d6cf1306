"""A real PostgreSQL for one clone, shared by every process of that clone that is alive.

`.valdrix/postgres.lock` is held while anything is changed. `.valdrix/postgres.lease` is shared by
every process that uses the server; whoever gives up the last share stops it. The kernel drops the
share of a process that dies, so a killed process neither keeps the server running for ever nor has
it stopped under somebody else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from valdrix.embedded import cluster, postmaster
from valdrix.embedded.account import Account, server_account
from valdrix.embedded.binaries import Binaries, find_binaries
from valdrix.embedded.errors import EmbeddedError, ServerDidNotStart
from valdrix.embedded.filelock import FileLock, exclusive
from valdrix.embedded.places import outside_place, prepare_state_directory
from valdrix.embedded.record import ClusterRecord, find_record, write_record

INSIDE_PLACE = "pg"
THROWAWAY_PREFIX = "valdrix-throwaway-"
PORT_ATTEMPTS = 5


class EmbeddedPostgres:
    """The server of one state directory. `start` and `stop` may be called by many processes."""

    def __init__(self, state_dir: Path, *, throwaway: bool = False) -> None:
        self._state = state_dir.resolve()
        self._throwaway = throwaway
        self._lease = FileLock(self._state / "postgres.lease")
        self._record: ClusterRecord | None = None

    def start(self) -> None:
        """Make the server run, by attaching to it or by starting it.

        :raises EmbeddedError: when it cannot; the message says why and what to do.
        """
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            with exclusive(self._state / "postgres.lock"):
                self._record = self._start_locked()
                self._lease.acquire_shared()
        except PermissionError as error:
            raise EmbeddedError(
                f"{error.filename} belongs to another user; run this command as that user."
            ) from error

    def stop(self) -> None:
        """Give the server up, and stop it unless another process uses it."""
        if not self._state.exists():
            return
        with exclusive(self._state / "postgres.lock"):
            self._lease.release()
            last = FileLock(self._state / "postgres.lease")
            try:
                if last.try_exclusive():
                    self._stop_locked()
            finally:
                last.release()

    def is_running(self) -> bool:
        """Say whether the server runs and accepts connections."""
        record = find_record(self._state)
        running = record and postmaster.find_running(Path(record.place) / "data")
        return bool(running and running.ready)

    @property
    def app_url(self) -> str:
        """The database's URL for the application's role."""
        return self._url(cluster.APP_ROLE, self._started().passwords.app)

    @property
    def owner_url(self) -> str:
        """The database's URL for the role that owns it and runs migrations."""
        return self._url(cluster.OWNER_ROLE, self._started().passwords.owner)

    @property
    def admin_url(self) -> str:
        """The database's URL for the superuser, which no part of the application uses."""
        return self._url(cluster.ADMIN_ROLE, self._started().passwords.admin)

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return self._started().port

    @property
    def data(self) -> Path:
        """The data directory of the cluster."""
        return Path(self._started().place) / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._state / "logs" / "postgresql.log"

    def environment(self) -> dict[str, str]:
        """Give the environment of a process that uses this server."""
        return {
            "DATABASE_URL": self.app_url,
            "DATABASE_OWNER_URL": self.owner_url,
            "TELEMETRY_DATABASE_PASSWORD": self._started().passwords.telemetry,
            "VALDRIX_EMBEDDED": "1",
        }

    def _started(self) -> ClusterRecord:
        if self._record is None:
            raise EmbeddedError("The embedded PostgreSQL was not started by this process.")
        return self._record

    def _url(self, role: str, password: str) -> str:
        return f"postgresql://{role}:{password}@{postmaster.HOST}:{self.port}/{cluster.DATABASE}"

    def _start_locked(self) -> ClusterRecord:
        record, account = self._placed()
        data = Path(record.place) / "data"
        running = postmaster.find_running(data)
        roles_are_current = record.roles_ready and record.roles_sha256 == cluster.roles_sha256()
        if running and roles_are_current:
            record = replace(record, port=running.port)
            write_record(self._state, record)
            return record
        binaries = find_binaries(account)
        if not data.exists():
            roles_are_current = False
            cluster.create_cluster(binaries, data.parent, record.passwords)
        cluster.check_major_version(binaries, data)
        record = self._run_server(record, binaries)
        try:
            if not roles_are_current:
                cluster.create_roles(binaries, record.port, record.passwords)
            cluster.check_durable(binaries, record.port, record.passwords)
        except BaseException:
            if not running:  # Others may be using one that ran already.
                self._stop_locked()
            raise
        record = replace(record, roles_ready=True, roles_sha256=cluster.roles_sha256())
        write_record(self._state, record)
        return record

    def _run_server(self, record: ClusterRecord, binaries: Binaries) -> ClusterRecord:
        data = Path(record.place) / "data"
        running = postmaster.find_running(data)
        attempts = 0
        while not running:
            port = postmaster.free_port(record.port if attempts == 0 else 0)
            attempts += 1
            try:
                running = postmaster.start(
                    binaries,
                    data,
                    settings=cluster.server_settings(port),
                    log=self.log,
                    dies_with_parent=self._throwaway,
                )
            except ServerDidNotStart:
                # Somebody else may have taken the port since it was found free.
                if attempts == PORT_ATTEMPTS or postmaster.port_is_free(port):
                    raise
        record = replace(record, port=running.port)
        write_record(self._state, record)
        return record

    def _stop_locked(self) -> None:
        record = find_record(self._state)
        if record:
            running = postmaster.find_running(Path(record.place) / "data")
            if running:
                postmaster.stop(running)
        if self._throwaway:
            if record:
                shutil.rmtree(record.place, ignore_errors=True)
            shutil.rmtree(self._state, ignore_errors=True)

    def _placed(self) -> tuple[ClusterRecord, Account]:
        """Find where the cluster is, or decide where it is to be."""
        record = find_record(self._state)
        origin = os.fspath(self._state)
        inside = self._state / INSIDE_PLACE
        if record and record.origin != origin:
            record = self._moved(record)
        if record:
            account = server_account(Path(record.place) / "data")
            prepare_state_directory(self._state, account)
        else:
            account = server_account(None)
            prepare_state_directory(self._state, account)
            place = (
                inside if account.can_reach(self._state) else outside_place(self._state, account)
            )
            _set_aside(place)
            record = ClusterRecord(origin=origin, place=os.fspath(place))
            write_record(self._state, record)
        if not account.can_reach(Path(record.place).parent):
            raise EmbeddedError(
                f"The account that PostgreSQL runs as can no longer enter {record.place}; "
                "move the clone back to where it was."
            )
        return record, account

    def _moved(self, record: ClusterRecord) -> ClusterRecord | None:
        """Adapt the record of a clone that was moved or copied.

        A cluster inside the clone comes along with it. One outside goes with a clone that was
        moved; a copy gets a new cluster, because the original still uses the old one.
        """
        old_state = Path(record.origin)
        if Path(record.place) == old_state / INSIDE_PLACE:
            place = os.fspath(self._state / INSIDE_PLACE)
        elif find_record(old_state):
            return None
        else:
            place = record.place
        record = replace(record, origin=os.fspath(self._state), place=place)
        write_record(self._state, record)
        return record


@contextmanager
def attach(state_dir: Path) -> Iterator[EmbeddedPostgres]:
    """Keep the server running for the time of the block.

    A server that already runs is used; the last process to leave stops it.

    :raises EmbeddedError: when the server cannot be started.
    """
    server = EmbeddedPostgres(state_dir)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def throwaway_postgres() -> Iterator[EmbeddedPostgres]:
    """Run a new, empty, durable server for the time of the block.

    :raises EmbeddedError: when the server cannot be started.
    """
    _remove_abandoned()
    state = Path(tempfile.mkdtemp(prefix=THROWAWAY_PREFIX))
    server = EmbeddedPostgres(state, throwaway=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _set_aside(place: Path) -> None:
    """Move away a cluster whose record, and so whose passwords, are gone."""
    if not place.exists():
        return
    running = postmaster.find_running(place / "data")
    if running:
        postmaster.stop(running)
    place.rename(place.with_name(f"{place.name}.without-record-{time.time_ns()}"))


def _remove_abandoned(*, older_than_seconds: float = 3600.0) -> None:
    """Remove throw-away clusters whose owner was killed."""
    for state in Path(tempfile.gettempdir()).glob(f"{THROWAWAY_PREFIX}*"):
        details = state.lstat()
        # Young ones may be in the making; those of other users are theirs to remove.
        is_old = time.time() - details.st_mtime > older_than_seconds
        if is_old and details.st_uid == os.geteuid() and not state.is_symlink():
            EmbeddedPostgres(state, throwaway=True).stop()

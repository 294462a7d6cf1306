"""Making a cluster: its directory, the roles and the database, and the proof that it is durable."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from valdrix.embedded.account import clean_environment
from valdrix.embedded.binaries import Binaries
from valdrix.embedded.errors import EmbeddedError, MajorVersionMismatch, NotDurable
from valdrix.embedded.places import private_directory, project_directory
from valdrix.embedded.postmaster import HOST
from valdrix.embedded.record import Passwords, write_private_file

ADMIN_ROLE = "valdrix_admin"
OWNER_ROLE = "valdrix_owner"
APP_ROLE = "valdrix_app"
DATABASE = "valdrix"
# The first major version whose own C.UTF-8 does not depend on the locales of the machine.
BUILTIN_LOCALE_MAJOR = 17
# With any of these off, a crash can lose a decision that was already answered (spec section 16).
DURABLE_SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
ACCESS_RULES = f"""\
# Passwords for everybody, from this machine only. Written when the cluster was made.
host all all {HOST}/32 scram-sha-256
"""


def server_settings(port: int) -> dict[str, str]:
    """Give the settings that every start passes to the server."""
    return {
        **DURABLE_SETTINGS,
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "password_encryption": "scram-sha-256",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "cluster_name": "valdrix",
    }


def create_cluster(binaries: Binaries, place: Path, passwords: Passwords) -> None:
    """Make the data directory `place/data`, wholly or not at all.

    :raises EmbeddedError: with what initdb said, when it fails.
    """
    private_directory(place, binaries.account)
    unfinished = place / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    password_file = place / "admin-password"
    write_private_file(password_file, passwords.admin)
    try:
        result = binaries.account.run(
            [
                binaries.program("initdb"),
                f"--pgdata={unfinished}",
                f"--username={ADMIN_ROLE}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--data-checksums",
                "--no-instructions",
                *_locale_options(binaries),
            ]
        )
    finally:
        password_file.unlink()
    if result.returncode != 0:
        raise EmbeddedError(f"The database could not be made:\n{result.stderr or result.stdout}")
    (unfinished / "pg_hba.conf").write_text(ACCESS_RULES)
    unfinished.rename(place / "data")


def check_major_version(binaries: Binaries, data: Path) -> None:
    """Refuse programs of another major version than the data directory's.

    :raises MajorVersionMismatch: naming both versions and the ways out.
    """
    made_by = (data / "PG_VERSION").read_text().strip()
    if made_by != str(binaries.major):
        raise MajorVersionMismatch(
            f"The database in {data} was made by PostgreSQL {made_by}, and the programs in "
            f"{binaries.bin} are PostgreSQL {binaries.version}. Install the programs of version "
            f"{made_by}, or dump the data with them and restore it into a new database."
        )


def create_roles(binaries: Binaries, port: int, passwords: Passwords) -> None:
    """Make the roles and the database, by the file external servers use too.

    :raises EmbeddedError: with what psql said, when it fails.
    """
    script = _roles_file().read_text()
    given = {
        "VALDRIX_OWNER_PASSWORD": passwords.owner,
        "VALDRIX_APP_PASSWORD": passwords.app,
        "VALDRIX_TELEMETRY_PASSWORD": passwords.telemetry,
        "PGUSER": ADMIN_ROLE,
        "PGPASSWORD": passwords.admin,
        "PGDATABASE": "postgres",
    }
    run_sql(binaries, port, script, given)


def roles_sha256() -> str:
    """Return the digest of the file that makes the roles."""
    return hashlib.sha256(_roles_file().read_bytes()).hexdigest()


def check_durable(binaries: Binaries, port: int, passwords: Passwords) -> None:
    """Check, as the application's role, that no commit can be lost.

    :raises NotDurable: naming each setting that is not as it must be.
    """
    names = ", ".join(f"'{name}'" for name in DURABLE_SETTINGS)
    query = f"SELECT name || '=' || setting FROM pg_settings WHERE name IN ({names})"  # noqa: S608
    given = {"PGUSER": APP_ROLE, "PGPASSWORD": passwords.app, "PGDATABASE": DATABASE}
    found = dict(line.split("=", 1) for line in run_sql(binaries, port, f"{query};", given).split())
    wrong = [
        f"{name} is {found.get(name, 'unknown')}, not {wanted}"
        for name, wanted in DURABLE_SETTINGS.items()
        if found.get(name) != wanted
    ]
    if wrong:
        raise NotDurable(f"The database could lose decisions: {'; '.join(wrong)}.")


def run_sql(binaries: Binaries, port: int, script: str, given: Mapping[str, str]) -> str:
    """Run a script with psql and return what it printed, unaligned.

    :raises EmbeddedError: with what psql said, when a statement fails.
    """
    result = subprocess.run(
        [
            os.fspath(binaries.program("psql")),
            *("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password"),
            "--set=ON_ERROR_STOP=1",
            "--file=-",
        ],
        input=script,
        capture_output=True,
        text=True,
        cwd="/",
        env={**clean_environment(), "PGHOST": HOST, "PGPORT": str(port), **given},
        timeout=120,
        check=False,
    )
    if result.returncode != 0:
        # The server quotes a failing statement, which may contain a password.
        quoted = re.sub(r"PASSWORD '[^']*'", "PASSWORD '…'", result.stderr.strip())
        raise EmbeddedError(f"The database could not be set up:\n{quoted}")
    return result.stdout


def _roles_file() -> Path:
    return project_directory() / "deploy" / "postgres" / "roles.sql"


def _locale_options(binaries: Binaries) -> list[str]:
    if binaries.major >= BUILTIN_LOCALE_MAJOR:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8"]

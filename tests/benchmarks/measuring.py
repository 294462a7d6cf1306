"""Readings: what one run of a load generator said, and the medians of several."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

GATE: Final = "/api/v1/enforcement/gate/terraform"
EMPTY: Final = "/api/v1/bench/empty"
"""The view that does nothing, where credentials are asked for."""
WRK_SCRIPT = Path(__file__).with_name("load.lua")
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_LATENCY = re.compile(r"^latency average = ([0-9.]+) ms", re.MULTILINE)
_FAILED = re.compile(r"number of failed transactions: ([0-9]+)")


class NotMeasured(RuntimeError):
    """A run ended with errors, so that its figures would mean something else."""


@dataclass(frozen=True)
class Reading:
    """One run: finished requests or transactions in a second, and latencies in milliseconds."""

    rate: float
    p50_ms: float
    p99_ms: float | None = None


@dataclass(frozen=True)
class Case:
    """One thing to measure, again and again."""

    name: str
    title: str
    run: Callable[[float], Reading]


@dataclass
class Series:
    """The readings of one case, in the order in which they were taken."""

    title: str
    readings: list[Reading] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return statistics.median(reading.rate for reading in self.readings)

    def median(self, name: str) -> float | None:
        """Return the median of one latency, or None where it was not measured."""
        found = [getattr(reading, name) for reading in self.readings]
        return None if None in found else statistics.median(found)

    def to_document(self) -> dict[str, Any]:
        """Return the series with its medians."""
        return {
            "title": self.title,
            "rate": round(self.rate, 1),
            "p50_ms": _rounded(self.median("p50_ms")),
            "p99_ms": _rounded(self.median("p99_ms")),
            "readings": [asdict(reading) for reading in self.readings],
        }


def measure(
    cases: list[Case], *, rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Series]:
    """Run every case once a round, so that whatever drifts on the machine reaches all of them."""
    taken = {case.name: Series(case.title) for case in cases}
    for number in range(1, rounds + 1):
        for case in cases:
            reading = case.run(seconds)
            taken[case.name].readings.append(reading)
            say(
                f"round {number}/{rounds}  {case.title:<52}"
                f"{reading.rate:>9.0f}/s  p50 {reading.p50_ms:.2f} ms"
            )
    return taken


@dataclass(frozen=True)
class Load:
    """Requests of one kind. ``body_file`` may hold @N@, which is never the same twice.

    :ivar is_keyed: each request carries an idempotency key of its own.
    """

    base_url: str
    path: str
    keys_file: Path
    body_file: Path | None = None
    method: str = "POST"
    clients: int = 10
    delay_ms: float = 0
    is_keyed: bool = True

    def run(self, seconds: float) -> Reading:
        """Send for some seconds and return what came of it.

        :raises NotMeasured: when an answer was not a 2xx or 3xx, or a connection broke.
        """
        figures = self.send(seconds)
        if figures["bad_status"] or figures["broken"]:
            counts = {name: figures[name] for name in ("requests", "bad_status", "broken")}
            raise NotMeasured(f"{self.path}: {counts}")
        return Reading(
            figures["requests"] / figures["seconds"], figures["p50_ms"], figures["p99_ms"]
        )

    def send(self, seconds: float) -> dict[str, Any]:
        """Send for some seconds and return the load generator's figures, refusals among them.

        :raises NotMeasured: when it could not be run.
        """
        told = {
            "BENCH_KEYS": str(self.keys_file),
            "BENCH_METHOD": self.method,
            "BENCH_PATH": self.path,
            "BENCH_PREFIX": f"{os.urandom(6).hex()}-",
            "BENCH_DELAY_MS": str(self.delay_ms),
            "BENCH_KEYED": "yes" if self.is_keyed else "no",
        }
        if self.body_file is not None:
            told["BENCH_BODY"] = str(self.body_file)
        done = subprocess.run(
            [
                *(program("wrk"), "--threads=1", f"--connections={self.clients}"),
                *(f"--duration={max(1, round(seconds))}s", f"--script={WRK_SCRIPT}"),
                *("--timeout=30s", self.base_url + self.path),
            ],
            env={**os.environ, **told},
            capture_output=True,
            text=True,
            check=False,
        )
        _, found, result = done.stdout.partition("RESULT ")
        if done.returncode != 0 or not found:
            raise NotMeasured(f"{self.path}: {done.stdout} {done.stderr}")
        figures: dict[str, Any] = orjson.loads(result)
        return figures


def run_pgbench(
    url: str, script: Path, *, clients: int, seconds: float, protocol: str = "prepared"
) -> Reading:
    """Run a pgbench script for some seconds and return its rate and mean latency.

    :raises NotMeasured: when a transaction failed.
    """
    done = subprocess.run(
        [
            *(program("pgbench"), "--no-vacuum", f"--protocol={protocol}", f"--client={clients}"),
            *(f"--time={max(1, round(seconds))}", f"--file={script}", url),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    failed = _FAILED.search(done.stdout)
    if done.returncode != 0 or (failed is not None and failed[1] != "0"):
        raise NotMeasured(f"pgbench {script.name}: {done.stdout} {done.stderr}")
    rate, latency = _TPS.search(done.stdout), _LATENCY.search(done.stdout)
    if rate is None or latency is None:
        raise NotMeasured(f"pgbench {script.name}: {done.stdout} {done.stderr}")
    return Reading(float(rate[1]), float(latency[1]))


def program(name: str) -> str:
    """Return the path of a program that measures.

    :raises NotMeasured: when it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise NotMeasured(f"{name} is not installed; without it nothing can be measured")
    return path


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)

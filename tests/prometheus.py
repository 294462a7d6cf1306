"""A real Prometheus with the shipped rules, and the shipped dashboard's questions to it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from valdrix.embedded.postmaster import free_port

PROJECT = Path(__file__).parents[1]
RULES = PROJECT / "deploy" / "prometheus" / "valdrix.rules.yml"
DASHBOARD = PROJECT / "deploy" / "grafana" / "valdrix.json"
READY_WITHIN_SECONDS = 30.0


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def get(self, path: str, **parameters: str) -> Any:
        """Return the ``data`` of an answer of its HTTP API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the vector that an expression gives now."""
        return list(self.get("query", query=expression)["result"])

    def query_range(self, expression: str, *, start: float, end: float, step: float) -> Any:
        """Return the series that an expression gives between two moments (Unix seconds)."""
        data = self.get(
            "query_range", query=expression, start=str(start), end=str(end), step=str(step)
        )
        return data["result"]


@contextmanager
def running_prometheus(
    program: str, *, target: str, directory: Path, interval: str = "1s"
) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped rules, scraping one target (``host:port``)."""
    # The rules' own interval is the operators'; here time is short.
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group.pop("interval", None)
    (directory / "rules.yml").write_text(yaml.safe_dump(rules))
    configuration = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "valdrix", "static_configs": [{"targets": [target]}]}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port(0)
    command = [
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        _wait_until_ready(server, process, directory / "log")
        yield server
    finally:
        process.terminate()
        process.wait(20)


def read_panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels that ask something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel.get("targets")]


def _wait_until_ready(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{server.address}/-/ready", timeout=2):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

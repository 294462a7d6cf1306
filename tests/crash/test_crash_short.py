"""The crash storm's short form: what was acknowledged is there, whatever was killed."""

from __future__ import annotations

import pytest

from tests.crash.faults import STOPPED, TERMINATED, WORKER
from tests.crash.storm import SHORT, run_storm


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_workers_sessions_and_the_database_die() -> None:
    report = run_storm(SHORT)

    assert report.problems == []
    assert report.kills[WORKER] >= 6
    assert (report.kills[TERMINATED], report.kills[STOPPED]) == (2, 1)
    assert report.counts["interrupted requests"] > 0
    assert report.counts["fail-safe answers"] > 0
    assert report.checked["decisions compared with their rows"] > 10
    assert report.checked["ledger entries verified"] > 10

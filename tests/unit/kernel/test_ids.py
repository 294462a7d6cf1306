"""Ids are UUIDs of version 7, grow within a process, and never repeat."""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from valdrix.kernel import ids
from valdrix.kernel.ids import new_id


def test_ids_grow_and_are_of_version_7() -> None:
    ids = [new_id() for _ in range(20_000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}


def test_ids_hold_the_time_of_their_making() -> None:
    before = time.time_ns() // 1_000_000
    # A maker of its own: that of the process counts on from where a test's clock has been.
    made = ids._Maker().next().int >> 80
    assert before - 5 <= made <= time.time_ns() // 1_000_000 + 5


def test_threads_share_one_order_and_no_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [new_id() for _ in range(2_000)], range(8)))

    assert all(batch == sorted(batch) for batch in batches)
    assert len({one for batch in batches for one in batch}) == 16_000


def test_a_clock_that_goes_back_changes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1)

    assert new_id() > first


def test_a_forked_process_draws_for_itself() -> None:
    new_id()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, new_id().bytes)
        os._exit(0)
    own = new_id()
    os.waitpid(pid, 0)
    other = uuid.UUID(bytes=os.read(reading, 16))
    os.close(reading)
    os.close(writing)

    # What is drawn for one id; the time before it may be the same.
    assert own.int & (2**62 - 1) != other.int & (2**62 - 1)

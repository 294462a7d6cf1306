"""Limits: never above, at most a twentieth below, over threads, processes and window edges."""

from __future__ import annotations

import bisect
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.programs import require_program
from valdrix.kernel.throttling import limiter as limiter_module
from valdrix.kernel.throttling.in_redis import RedisCounts
from valdrix.kernel.throttling.limiter import Limiter
from valdrix.kernel.throttling.shared_file import SharedFile
from valdrix.kernel.throttling.windows import PACED_FROM, Limit, Taken

ROOT = Path(__file__).resolve().parents[3]


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counts(tmp_path: Path, clock: Clock) -> Iterator[SharedFile]:
    made = SharedFile(tmp_path, clock=clock)
    yield made
    made.close()


def most_in_any_window(times: Sequence[float], seconds: float) -> int:
    """Return how many of the times lie together within the fullest window of a length."""
    ordered = sorted(times)
    return max(
        (
            bisect.bisect_left(ordered, begin + seconds) - index
            for index, begin in enumerate(ordered)
        ),
        default=0,
    )


def test_global_rate_limit_throttles_cross_tenant_requests(counts: SharedFile) -> None:
    """FI-005: tenants that are each far below their own limit share one cap."""
    shared = Limit("enforcement_gate", 10, 60.0)

    def ask(tenant: str) -> Taken:
        return counts.take((Limit(f"gate:{tenant}", 100, 1.0), shared))

    assert all(ask(f"tenant-{number % 5}").is_allowed for number in range(10))
    refused = ask("tenant-6")
    assert (refused.refused, refused.used) == (1, (0, 10))
    assert 1 <= refused.wait_seconds <= 63
    # Whoever is refused by the cap has lost nothing of their own.
    assert counts.take((Limit("gate:tenant-6", 100, 1.0),)).used == (1,)


def test_a_burst_up_to_the_limit_passes_at_once_and_no_more(
    counts: SharedFile, clock: Clock
) -> None:
    limit = Limit("a", 5, 60.0)
    assert [counts.take((limit,)).is_allowed for _ in range(7)] == [True] * 5 + [False] * 2
    refused = counts.take((limit,))
    clock.now += refused.wait_seconds
    assert counts.take((limit,)).is_allowed


def test_nothing_doubles_at_the_edge_of_a_window(counts: SharedFile, clock: Clock) -> None:
    """The whole limit just before an edge, and again just after it, is what must not pass."""
    limit = Limit("edge", 100, 60.0)
    passed: list[float] = []
    for moment in (1019.99, 1020.0, 1020.01, 1079.98, 1079.99, 1080.0, 1080.01, 1082.9, 1083.0):
        clock.now = moment
        passed += [moment for _ in range(150) if counts.take((limit,)).is_allowed]
    assert most_in_any_window(passed, 60.0) == 100
    assert len(passed) == 200


@given(
    amount=st.integers(1, 40),
    steps=st.lists(
        st.tuples(st.floats(0, 30, allow_nan=False), st.integers(1, 30)), min_size=1, max_size=40
    ),
)
@settings(max_examples=200, deadline=None)
def test_no_window_ever_holds_more_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, amount: int, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    store = SharedFile(tmp_path_factory.mktemp("w"), clock=clock, entries=16)
    limit = Limit("any", amount, 10.0)
    passed: list[float] = []
    for pause, tries in steps:
        clock.now += pause
        for _ in range(tries):
            taken = store.take((limit,))
            if taken.is_allowed:
                passed.append(clock.now)
            else:
                assert 1 <= taken.wait_seconds <= 11
    store.close()
    assert most_in_any_window(passed, 10.0) <= amount


def test_steady_load_gets_at_least_nineteen_twentieths(counts: SharedFile, clock: Clock) -> None:
    limit = Limit("steady", 600, 1.0)
    allowed = 0
    began = clock.now
    while clock.now < began + 20:
        allowed += counts.take((limit,)).is_allowed
        clock.now += 0.0005
    assert 0.95 * 600 * 20 <= allowed <= 600 * 21


@pytest.mark.parametrize(("amount", "times"), [(50, 2.0), (50, 6.0), (600, 3.0)])
def test_an_uneven_flood_loses_hardly_anything_by_its_pacing(
    counts: SharedFile, clock: Clock, amount: int, times: float
) -> None:
    limit, chance = Limit("uneven", amount, 1.0), random.Random(7)
    began, passed = clock.now, []
    while clock.now < began + 25:
        clock.now += chance.expovariate(amount * times)
        if counts.take((limit,)).is_allowed:
            passed.append(clock.now)
    assert 0.94 * amount * 25 <= len(passed)
    assert most_in_any_window(passed, 1.0) == amount


def test_a_flood_s_tokens_come_evenly_and_not_in_bursts(counts: SharedFile, clock: Clock) -> None:
    """FI-005: what passes of a flood must not queue before others' gates once a second."""
    limit, passed = Limit("flood", 50, 1.0), []
    for _ in range(6 * 1000):
        clock.now += 1 / 1000
        if counts.take((limit,)).is_allowed:
            passed.append(clock.now)
    assert most_in_any_window(passed[:60], 0.1) == 50
    later = [moment for moment in passed if moment > 1002.5]
    assert len(later) >= 0.95 * 50 * 3.5
    assert most_in_any_window(later, 0.05) <= 8
    assert most_in_any_window(later, 0.2) <= 15


def test_who_pauses_after_a_flood_has_the_whole_limit_again(
    counts: SharedFile, clock: Clock
) -> None:
    limit = Limit("pause", 50, 1.0)
    for _ in range(3 * 250):
        clock.now += 1 / 250
        counts.take((limit,))
    clock.now += 1.06
    assert [counts.take((limit,)).is_allowed for _ in range(60)] == [True] * 50 + [False] * 10


def test_a_refusal_of_a_paced_limit_says_when_the_next_token_is_due(
    counts: SharedFile, clock: Clock
) -> None:
    limit = Limit("due", 10, 60.0)
    for _ in range(120 * 5):
        clock.now += 0.2
        counts.take((limit,))
    refused = counts.take((limit,))
    while refused.is_allowed:
        refused = counts.take((limit,))
    assert 1 <= refused.wait_seconds <= 7
    clock.now += refused.wait_seconds
    assert counts.take((limit,)).is_allowed


def test_a_refusal_takes_nothing_of_the_other_limits(counts: SharedFile) -> None:
    wide, narrow = Limit("wide", 100, 60.0), Limit("narrow", 1, 60.0)
    assert counts.take((wide, narrow)).is_allowed
    assert counts.take((wide, narrow)).refused == 1
    assert counts.take((wide,)).used == (2,)


def test_the_wait_is_long_enough_and_not_too_long(counts: SharedFile, clock: Clock) -> None:
    limit = Limit("wait", 1, 10.0)
    assert counts.take((limit,)).is_allowed
    clock.now += 3.0
    wait = counts.take((limit,)).wait_seconds
    clock.now += wait - 1.51
    assert not counts.take((limit,)).is_allowed
    clock.now += 1.51
    assert counts.take((limit,)).is_allowed


def test_a_clock_that_begins_anew_does_not_lock_anybody_out(
    counts: SharedFile, clock: Clock
) -> None:
    limit = Limit("reboot", 1, 60.0)
    assert counts.take((limit,)).is_allowed
    clock.now = 1.0
    assert counts.take((limit,)).is_allowed


def test_more_names_than_places_never_refuse_anybody_wrongly(tmp_path: Path, clock: Clock) -> None:
    store = SharedFile(tmp_path, clock=clock, entries=16)
    for number in range(500):
        clock.now += 0.1
        assert store.take((Limit(f"n{number}", 1, 60.0),)).is_allowed
    store.close()


# --- threads and processes ------------------------------------------------------------------------

_HAMMER = """
import sys, threading, time
from pathlib import Path
from valdrix.kernel.throttling.shared_file import SharedFile
from valdrix.kernel.throttling.windows import Limit
store, limit = SharedFile(Path(sys.argv[1])), Limit("all", int(sys.argv[2]), 1.0)
print("ready", flush=True)
end = time.monotonic() + float(sys.stdin.readline())
counted, guard = [], threading.Lock()
def hammer():
    own = []
    while time.monotonic() < end:
        before = time.monotonic()
        if store.take((limit,)).is_allowed:
            own.append((before, time.monotonic()))
        else:
            time.sleep(0.002)
    with guard:
        counted.extend(own)
threads = [threading.Thread(target=hammer) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("\\n".join(f"{a} {b}" for a, b in counted))
"""


def test_sixty_four_threads_of_four_processes_never_pass_more(tmp_path: Path) -> None:
    """FI-005: the count is one for all processes; each passes at a moment between two it noted."""
    amount, seconds = 400, 3.0
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _HAMMER, str(tmp_path), str(amount)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    spans = []
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        spans.append([tuple(map(float, line.split())) for line in output.split("\n") if line])
    assert sum(map(bool, spans)) > 1, "one process passed everything"
    everything = sorted(span for each in spans for span in each)
    # Surely inside a window: noted to begin after its begin and to be over before its end.
    for begin, _ in everything[::7]:
        inside = sum(1 for first, last in everything if begin <= first and last < begin + 1.0)
        assert inside <= amount
    took = everything[-1][1] - everything[0][0]
    assert len(everything) >= 0.95 * amount * (took - 1.0)


def test_a_process_that_dies_with_the_lock_holds_nobody(tmp_path: Path) -> None:
    code = (
        "import fcntl, os, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n"
        "fcntl.lockf(fd, fcntl.LOCK_EX, 1)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "throttle.v2")], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    store = SharedFile(tmp_path)
    taken: list[Taken] = []
    thread = threading.Thread(target=lambda: taken.append(store.take((Limit("a", 1, 60.0),))))
    thread.start()
    assert not taken
    holder.kill()
    holder.communicate()
    thread.join(10)
    assert taken[0].is_allowed
    store.close()


# --- a limiter that is down ----------------------------------------------------------------------


class DeadRedis(RedisCounts):
    """A Redis that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    def take(self, limits: Sequence[Limit]) -> Taken:
        self.asked += 1
        raise redis.ConnectionError("gone")

    def close(self) -> None:
        """Have nothing to close."""


def test_a_redis_that_is_down_is_left_alone_and_the_machine_counts_for_itself(
    counts: SharedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = DeadRedis()
    made = Limiter(in_redis=dead, in_file=counts)
    limit = Limit("down", 3, 60.0)
    assert [made.take((limit,)).is_allowed for _ in range(5)] == [True] * 3 + [False] * 2
    assert dead.asked == 1
    later = time.monotonic() + limiter_module.PAUSE_SECONDS + 1
    monkeypatch.setattr(limiter_module.time, "monotonic", lambda: later)
    made.take((Limit("another", 3, 60.0),))
    assert dead.asked == 2


@pytest.mark.parametrize("breakage", ["a file in the way", "a foreign file"])
def test_a_limiter_that_cannot_count_lets_everybody_pass(tmp_path: Path, breakage: str) -> None:
    if breakage == "a file in the way":
        (tmp_path / "directory").write_text("")
        store = SharedFile(tmp_path / "directory")
    else:
        (tmp_path / "throttle.v2").symlink_to("/etc/hostname")
        store = SharedFile(tmp_path)
    made = Limiter(in_redis=None, in_file=store)
    assert all(made.take((Limit("a", 1, 60.0),)).is_allowed for _ in range(3))


# --- Redis ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = require_program("redis-server")
    directory = tmp_path_factory.mktemp("redis")
    socket = directory / "s"
    process = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    )
    url = f"unix://{socket}"
    client = redis.Redis.from_url(url)
    deadline = time.monotonic() + 20
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    client.close()
    yield url
    process.kill()
    process.wait()


def test_redis_counts_like_the_file(redis_url: str) -> None:
    store = RedisCounts(redis_url)
    limit, wide = Limit("r", 5, 60.0), Limit("w", 100, 60.0)
    assert [store.take((wide, limit)).is_allowed for _ in range(7)] == [True] * 5 + [False] * 2
    refused = store.take((wide, limit))
    assert (refused.refused, refused.used) == (1, (5, 5))
    assert 57 <= refused.wait_seconds <= 63
    seen = store.look((wide, limit))
    assert (seen.refused, seen.used) == (1, (5, 5))
    assert seen.wait_seconds in {refused.wait_seconds, refused.wait_seconds - 1}
    assert [store.look((wide,)).used for _ in range(3)] == [(5,)] * 3
    assert store.take((wide,)).used == (6,)
    store.close()


def test_redis_notes_a_refusal_that_was_only_looked_up(redis_url: str) -> None:
    store, client = RedisCounts(redis_url), redis.Redis.from_url(redis_url)
    limit = Limit("noted", 1, 60.0)
    key = "{valdrix-throttle-2}:" + limit.digest.hex()
    assert store.look((limit,)).is_allowed
    assert not client.exists(key)
    assert store.take((limit,)).is_allowed
    assert not store.look((limit,)).is_allowed
    assert [name[:1] for name in client.hkeys(key)].count(b"r") == 1  # type: ignore[union-attr] # redis types both clients
    client.close()
    store.close()


def test_redis_paces_a_flood_like_the_file(redis_url: str) -> None:
    store, client = RedisCounts(redis_url), redis.Redis.from_url(redis_url)
    limit = Limit("paced", 1000, 60.0)
    key = "{valdrix-throttle-2}:" + limit.digest.hex()
    assert store.take((limit,)).is_allowed
    now = int(client.time()[0])
    slot = int(now / limit.part_seconds)

    def seem(refusing: int, next_at: int) -> None:
        client.delete(key)
        marks: dict[str, int] = {f"r{slot - number}": 1 for number in range(refusing)}
        client.hset(key, mapping={**marks, "n": next_at * 1_000_000})

    # A token is due in twenty seconds: for a flood that is a refusal, else it says nothing.
    seem(PACED_FROM - 1, now + 20)
    assert store.take((limit,)).is_allowed
    seem(PACED_FROM + 1, now + 20)
    refused = store.take((limit,))
    assert (refused.refused, refused.used) == (0, (0,))
    assert 10 <= refused.wait_seconds <= 14
    assert 0 < refused.certain_seconds <= limit.part_seconds
    seem(PACED_FROM + 1, now - 20)
    assert store.take((limit,)).is_allowed
    due = float(client.hget(key, "n")) / 1e6  # type: ignore[arg-type] # redis types both clients
    assert due >= now + limit.spacing_seconds - 1
    client.close()
    store.close()


def test_redis_never_passes_more_to_many_threads(
    redis_url: str, run_apart: Callable[[Callable[[], None], int], None]
) -> None:
    limit, end = Limit("threads", 300, 1.0), time.monotonic() + 2.5
    passed: list[tuple[float, float]] = []
    guard = threading.Lock()

    def hammer() -> None:
        store, own = RedisCounts(redis_url), []
        while time.monotonic() < end:
            before = time.monotonic()
            if store.take((limit,)).is_allowed:
                own.append((before, time.monotonic()))
            else:
                time.sleep(0.005)
        store.close()
        with guard:
            passed.extend(own)

    run_apart(hammer, 16)
    for begin, _ in passed[::5]:
        assert sum(1 for a, b in passed if begin <= a and b < begin + 1.0) <= 300
    took = max(b for _, b in passed) - min(a for a, _ in passed)
    assert len(passed) >= 0.95 * 300 * (took - 1.0)


@pytest.fixture
def run_apart() -> Callable[[Callable[[], None], int], None]:
    def run(function: Callable[[], None], number: int) -> None:
        threads = [threading.Thread(target=function) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def test_redis_forgets_what_is_over(redis_url: str) -> None:
    store = RedisCounts(redis_url)
    store.take((Limit("brief", 5, 1.0),))
    client = redis.Redis.from_url(redis_url)
    keys = [key for key in client.scan_iter() if client.pttl(key) < 1200]
    assert keys
    assert all(client.pttl(key) > 0 for key in keys)
    client.close()
    store.close()


# --- Refusals that are remembered ----------------------------------------------------------------


class Counting:
    """A store that tells how often it was asked."""

    def __init__(self, store: SharedFile) -> None:
        self.store, self.asked = store, 0

    def take(self, limits: Sequence[Limit]) -> Taken:
        self.asked += 1
        return self.store.take(limits)

    def look(self, limits: Sequence[Limit]) -> Taken:
        self.asked += 1
        return self.store.look(limits)

    def close(self) -> None:
        """Leave the store to who made it."""


def test_a_refusal_stands_until_the_next_part_and_asks_nobody(
    counts: SharedFile, clock: Clock
) -> None:
    store = Counting(counts)
    made = Limiter(in_redis=None, in_file=store, clock=clock)
    limit = Limit("flood", 3, 1.0)
    clock.now = 1000.001
    assert [made.take((limit,)).is_allowed for _ in range(500)] == [True] * 3 + [False] * 497
    assert store.asked == 4
    clock.now = 1000.049
    assert made.take((limit,)).wait_seconds == 2
    assert store.asked == 4
    clock.now = 1000.051
    assert not made.take((limit,)).is_allowed
    assert store.asked == 5
    # Whoever has other limits is not meant.
    assert made.take((Limit("other", 3, 1.0),)).is_allowed


def test_remembering_refusals_changes_none_of_them(tmp_path: Path, clock: Clock) -> None:
    plain = SharedFile(tmp_path / "plain", clock=clock)
    limits = (Limit("tenant", 40, 1.0), Limit("all", 900, 60.0))
    made = Limiter(in_redis=None, in_file=SharedFile(tmp_path / "kept", clock=clock), clock=clock)
    for step in range(20_000):
        clock.now = 1000.0 + step / 173
        first, second = plain.take(limits), made.take(limits)
        assert (first.refused, first.is_allowed) == (second.refused, second.is_allowed), step
        assert 0 <= second.wait_seconds - first.wait_seconds <= 1
    plain.close()
    made.close()


def test_looking_before_taking_changes_no_answer_and_takes_nothing(
    tmp_path: Path, clock: Clock
) -> None:
    plain = SharedFile(tmp_path / "plain", clock=clock)
    limits = (Limit("tenant", 40, 1.0), Limit("all", 900, 60.0))
    made = Limiter(in_redis=None, in_file=SharedFile(tmp_path / "seen", clock=clock), clock=clock)
    looked = 0
    for step in range(20_000):
        clock.now = 1000.0 + step / 173
        refused = made.find_refusal(limits)
        looked += refused is not None
        first, second = plain.take(limits), refused or made.take(limits)
        assert (first.refused, first.is_allowed) == (second.refused, second.is_allowed), step
    assert looked > 10_000
    plain.close()
    made.close()


def test_who_was_refused_long_ago_is_not_looked_up(counts: SharedFile, clock: Clock) -> None:
    store = Counting(counts)
    made = Limiter(in_redis=None, in_file=store, clock=clock)
    limits = (Limit("once", 1, 60.0),)
    assert made.find_refusal(limits) is None
    assert [made.take(limits).is_allowed for _ in range(2)] == [True, False]
    assert made.find_refusal(limits) is not None
    assert store.asked == 2
    clock.now += 2.5
    assert made.find_refusal(limits) is not None
    assert store.asked == 3
    clock.now += 3.1 + limiter_module._LOOKS_SECONDS
    assert made.find_refusal(limits) is None
    assert store.asked == 3


def test_remembered_refusals_are_bounded(counts: SharedFile, clock: Clock) -> None:
    made = Limiter(in_redis=None, in_file=counts, clock=clock)
    for number in range(limiter_module._MOST_REMEMBERED + 10):
        key = (Limit(f"tenant-{number}", 1, 60.0),)
        made._remember(key, Taken(0, 1, (1,), 3.0))
    assert len(made._spent) == 10

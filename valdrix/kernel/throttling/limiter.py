"""The limiter that doors ask. One that is down stops nobody: it counts that, and lets pass.

With Redis all machines count together; while Redis is down, and where there is none, the
processes of each machine do. A refusal is remembered for as long as no token can come back, so that a
flood does not hold up others at the counts.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

import redis
from django.conf import settings

from valdrix.kernel.metrics import THROTTLE_FAILURES
from valdrix.kernel.throttling.in_redis import RedisCounts
from valdrix.kernel.throttling.shared_file import SharedFile
from valdrix.kernel.throttling.windows import Limit, Taken

log = logging.getLogger("valdrix.throttling")

PAUSE_SECONDS: Final = 5.0
"""How long Redis is left alone after it failed."""
_LOOKS_SECONDS: Final = 1.0
"""How long after a refusal is no longer certain its caller is taken for one who goes on asking."""
_MOST_REMEMBERED: Final = 4096


class Limiter:
    """Takes tokens from Redis or from the machine's own file. Safe to use from many threads."""

    def __init__(
        self,
        *,
        in_redis: RedisCounts | None,
        in_file: SharedFile,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = in_redis
        self._file = in_file
        self._clock = clock
        self._lock = threading.Lock()
        self._resumes_at = 0.0
        self._spent: dict[tuple[Limit, ...], tuple[float, float, Taken]] = {}

    def take(self, limits: Sequence[Limit]) -> Taken:
        """Take one token of every limit, or of none; whatever fails lets pass."""
        key = tuple(limits)
        return self._find_certain(key) or self._ask(key, is_taking=True)

    def find_refusal(self, limits: tuple[Limit, ...]) -> Taken | None:
        """Return what refuses these limits now, after they were refused a moment ago; takes nothing.

        While that refusal is certain nobody is asked. Who goes on asking is looked up for one more
        second; after that, None is the answer, whatever the counts say.
        """
        if not self.goes_on(limits):
            return None
        refusal = self._find_certain(limits)
        if refusal is not None:
            return refusal
        seen = self._ask(limits, is_taking=False)
        return None if seen.is_allowed else seen

    def goes_on(self, limits: tuple[Limit, ...]) -> bool:
        """Tell whether these limits refused so lately that whoever asks now goes on asking."""
        spent = self._spent.get(limits)
        return spent is not None and self._clock() < spent[1] + _LOOKS_SECONDS

    def _find_certain(self, limits: tuple[Limit, ...]) -> Taken | None:
        """Return what a moment ago refused these limits, while that is certain."""
        spent = self._spent.get(limits)
        if spent is None:
            return None
        now = self._clock()
        since, until, refusal = spent
        if now >= until:
            return None
        left = refusal.wait_seconds - (now - since)
        return replace(refusal, wait_seconds=max(1, math.ceil(left)))

    def _ask(self, limits: tuple[Limit, ...], *, is_taking: bool) -> Taken:
        answer = self._count(limits, is_taking=is_taking)
        if not answer.is_allowed:
            self._remember(limits, answer)
        return answer

    def _count(self, limits: Sequence[Limit], *, is_taking: bool) -> Taken:
        if self._redis is not None and time.monotonic() >= self._resumes_at:
            try:
                return self._redis.take(limits) if is_taking else self._redis.look(limits)
            except redis.RedisError as error:
                with self._lock:
                    self._resumes_at = time.monotonic() + PAUSE_SECONDS
                self._note("redis", error)
        try:
            return self._file.take(limits) if is_taking else self._file.look(limits)
        except (OSError, ValueError) as error:
            self._note("file", error)
            return Taken(None, 0, (0,) * len(limits))

    def _remember(self, key: tuple[Limit, ...], refusal: Taken) -> None:
        """Keep a refusal for as long as it is certain; what is kept is bounded."""
        now = self._clock()
        with self._lock:
            if len(self._spent) >= _MOST_REMEMBERED:
                self._spent.clear()
            self._spent[key] = (now, now + refusal.certain_seconds, replace(refusal, used=()))

    def close(self) -> None:
        """Close what is open."""
        self._file.close()
        if self._redis is not None:
            self._redis.close()

    def _note(self, store: str, error: Exception) -> None:
        THROTTLE_FAILURES.labels(store).inc()
        log.warning("throttling by %s fails: %s", store, type(error).__name__)


@lru_cache(maxsize=1)
def limiter() -> Limiter:
    """Return the process's limiter, as the settings have it."""
    url: str = settings.THROTTLE_REDIS_URL
    return Limiter(
        in_redis=RedisCounts(url) if url else None,
        in_file=SharedFile(settings.THROTTLE_DIRECTORY),
    )

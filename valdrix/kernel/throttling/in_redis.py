"""Counts of all machines' processes, in Redis: one short script a request, by Redis's own clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from valdrix.kernel.throttling.windows import SLOTS, Limit, Taken

_TIMEOUT_SECONDS: Final = 0.25
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local refused, wait, certain, used, slots = -1, 0, 0, {}, {}
for i, key in ipairs(KEYS) do
    local amount, part = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local slot = math.floor(now / part)
    local sum, oldest = 0, slot
    local fields = redis.call('HGETALL', key)
    for f = 1, #fields, 2 do
        local at = tonumber(fields[f])
        if at <= slot - SLOTS then
            redis.call('HDEL', key, fields[f])
        else
            sum = sum + tonumber(fields[f + 1])
            if at < oldest then oldest = at end
        end
    end
    used[i], slots[i] = sum, slot
    if refused < 0 and sum >= amount then
        refused = i - 1
        wait = (oldest + SLOTS) * part - now
        certain = (slot + 1) * part - now
    end
end
if refused < 0 then
    for i, key in ipairs(KEYS) do
        used[i] = used[i] + 1
        redis.call('HINCRBY', key, string.format('%.0f', slots[i]), 1)
        redis.call('PEXPIRE', key, math.ceil(tonumber(ARGV[2 * i]) * (SLOTS + 1) / 1000))
    end
end
return {refused, wait, used, certain}
""".replace("SLOTS", str(SLOTS))


class RedisCounts:
    """Counts in one Redis; every call may fail, and says so quickly."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            # A limiter is not worth waiting for a second time.
            retry=Retry(NoBackoff(), 0),
        )
        self._script: Any = self._client.register_script(_SCRIPT)

    def take(self, limits: Sequence[Limit]) -> Taken:
        """Take one token of every limit, or of none.

        :raises redis.RedisError: when Redis does not answer in time.
        """
        keys = ["{valdrix-throttle}:" + limit.digest.hex() for limit in limits]
        arguments: list[int] = []
        for limit in limits:
            arguments += (limit.amount, round(limit.part_seconds * 1_000_000))
        refused, wait_us, used, certain_us = self._script(keys=keys, args=arguments)
        if refused < 0:
            return Taken(None, 0, tuple(used))
        wait = max(1, math.ceil(wait_us / 1_000_000))
        return Taken(refused, wait, tuple(used), certain_us / 1_000_000)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

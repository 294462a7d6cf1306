"""Counts of all machines' processes, in Redis: one short script a request, by Redis's own clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from valdrix.kernel.throttling.windows import CATCH_UP_PARTS, PACED_FROM, SLOTS, Limit, Taken

_TIMEOUT_SECONDS: Final = 0.25
_SCRIPT: Final = """
local taking = ARGV[#ARGV] == '1'
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local refused, wait, certain, used, slots, paced, due = -1, 0, 0, {}, {}, {}, {}
for i, key in ipairs(KEYS) do
    local amount, part = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local slot = math.floor(now / part)
    local sum, oldest, refusing, next_at = 0, slot, 0, 0
    local fields = redis.call('HGETALL', key)
    for f = 1, #fields, 2 do
        local name, value = fields[f], tonumber(fields[f + 1])
        local kind, at = string.sub(name, 1, 1), tonumber(string.sub(name, 2))
        if kind == 'n' then
            next_at = value
        elseif at <= slot - SLOTS then
            redis.call('HDEL', key, name)
        elseif kind == 'r' then
            refusing = refusing + 1
        else
            sum = sum + value
            if at < oldest then oldest = at end
        end
    end
    used[i], slots[i], due[i] = sum, slot, next_at
    paced[i] = refusing >= PACED_FROM
    if refused < 0 then
        local part_ends = (slot + 1) * part - now
        local early = next_at - CATCH_UP_PARTS * part - now
        if sum >= amount then
            refused, wait, certain = i - 1, (oldest + SLOTS) * part - now, part_ends
        elseif paced[i] and early > 0 then
            refused, wait, certain = i - 1, early, math.min(early, part_ends)
        end
        if refused >= 0 then
            redis.call('HSET', key, 'r' .. string.format('%.0f', slot), 1)
        end
    end
end
if refused < 0 and taking then
    for i, key in ipairs(KEYS) do
        local amount, part = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
        used[i] = used[i] + 1
        redis.call('HINCRBY', key, 't' .. string.format('%.0f', slots[i]), 1)
        if paced[i] then
            local next_at = math.max(due[i], now) + part * SLOTS / amount
            redis.call('HSET', key, 'n', string.format('%.0f', next_at))
        end
        redis.call('PEXPIRE', key, math.ceil(part * (SLOTS + 1) / 1000))
    end
end
return {refused, wait, used, certain}
"""
_FIGURES: Final = {"SLOTS": SLOTS, "PACED_FROM": PACED_FROM, "CATCH_UP_PARTS": CATCH_UP_PARTS}


def _script() -> str:
    """Return the script with the figures of the windows in it.

    A hash holds what was taken in a part (``t``), in which parts something was refused (``r``), and
    when the next token is due where they are given evenly (``n``): a :class:`Bucket`.
    """
    text = _SCRIPT
    for name, figure in _FIGURES.items():
        text = text.replace(name, str(figure))
    return text


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
        self._script: Any = self._client.register_script(_script())

    def take(self, limits: Sequence[Limit]) -> Taken:
        """Take one token of every limit, or of none.

        :raises redis.RedisError: when Redis does not answer in time.
        """
        return self._ask(limits, is_taking=True)

    def look(self, limits: Sequence[Limit]) -> Taken:
        """Tell what taking would meet; a refusal is noted, and nothing is taken.

        :raises redis.RedisError: when Redis does not answer in time.
        """
        return self._ask(limits, is_taking=False)

    def _ask(self, limits: Sequence[Limit], *, is_taking: bool) -> Taken:
        keys = ["{valdrix-throttle-2}:" + limit.digest.hex() for limit in limits]
        arguments: list[int] = []
        for limit in limits:
            arguments += (limit.amount, round(limit.part_seconds * 1_000_000))
        arguments.append(int(is_taking))
        refused, wait_us, used, certain_us = self._script(keys=keys, args=arguments)
        if refused < 0:
            return Taken(None, 0, tuple(used))
        wait = max(1, math.ceil(wait_us / 1_000_000))
        return Taken(refused, wait, tuple(used), certain_us / 1_000_000)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

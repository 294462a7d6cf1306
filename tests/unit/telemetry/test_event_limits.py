"""What an event may be: malformed and oversized ones are refused before they are queued."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from telemetry.events.cardinality import MOST_SETS, MOST_VALUES, Folding
from telemetry.events.domain import (
    LARGEST_USD,
    LONGEST_MS,
    MOST_PAYLOAD_BYTES,
    OTHER,
    Fate,
    Unacceptable,
    build_row,
    check,
)
from valdrix.kernel.emitter import GATE_DECIDED, Observation

TENANT = uuid.UUID(int=2)


def seen(**members: Any) -> Observation:
    return Observation(
        **{
            "id": uuid.UUID(int=1),
            "tenant_id": TENANT,
            "kind": GATE_DECIDED,
            "at": datetime(2026, 11, 1, tzinfo=UTC),
            "outcome": "ALLOW",
            "source": "terraform",
            "environment": "prod",
            "duration_ms": 7,
            "amount_usd": Decimal("1.50"),
            "attributes": {"mode": "hard", "count": 3, "none": None},
            **members,
        }
    )


def fate_of(observation: Observation) -> Fate | None:
    try:
        check(observation)
        build_row(observation, dict(observation.attributes))
    except Unacceptable as refusal:
        return refusal.fate
    return None


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"duration_ms": None, "amount_usd": None, "source": None, "environment": None},
        {"duration_ms": LONGEST_MS, "amount_usd": LARGEST_USD},
        {"amount_usd": -LARGEST_USD},
        {"attributes": {}},
        {"attributes": {"project": "é" * 500}},
    ],
)
def test_what_fits_is_kept_as_it_is(members: dict[str, Any]) -> None:
    observation = seen(**members)
    assert fate_of(observation) is None
    row = build_row(observation, dict(observation.attributes))
    assert row[:-1] == tuple(getattr(observation, name) for name in row._fields[:-1])
    assert json.loads(row.attributes) == observation.attributes


@pytest.mark.parametrize(
    "members",
    [
        {"kind": "another"},
        {"at": datetime(2026, 11, 1)},  # noqa: DTZ001 - the point
        {"outcome": ""},
        {"outcome": "x" * 41},
        {"source": "nul\0"},
        {"id": "not an id"},
        {"duration_ms": -1},
        {"duration_ms": LONGEST_MS + 1},
        {"amount_usd": Decimal("NaN")},
        {"amount_usd": Decimal("Infinity")},
        {"amount_usd": LARGEST_USD + 1},
        {"attributes": {"nested": {"a": 1}}},
        {"attributes": {"float": 0.1}},
        {"attributes": {"n" * 41: "x"}},
        {"attributes": {"project": "\0"}},
        {"attributes": {"project": "\ud800"}},
        {"attributes": {"number": 2**70}},
    ],
)
def test_what_is_malformed_is_refused(members: dict[str, Any]) -> None:
    assert fate_of(seen(**members)) is Fate.INVALID


@pytest.mark.parametrize(
    "attributes",
    [
        {"project": "x" * (MOST_PAYLOAD_BYTES + 1)},
        {"project": "x" * (MOST_PAYLOAD_BYTES - 5)},
        {"project": "é" * (MOST_PAYLOAD_BYTES // 2)},
        {f"a{number}": "x" * 300 for number in range(8)},
        {f"a{number}": number for number in range(13)},
    ],
)
def test_what_is_too_large_is_refused(attributes: dict[str, Any]) -> None:
    assert fate_of(seen(attributes=attributes)) is Fate.OVERSIZED


def test_free_text_beyond_the_limit_is_folded_into_one_word() -> None:
    folding = Folding()
    for number in range(MOST_VALUES):
        assert folding.fold(TENANT, {"project": f"p{number}"}) == {"project": f"p{number}"}
    assert folding.fold(TENANT, {"project": "one more"}) == {"project": OTHER}
    # What is known stays told apart; other attributes and other tenants have room of their own.
    assert folding.fold(TENANT, {"project": "p7", "mode": "hard"}) == {
        "project": "p7",
        "mode": "hard",
    }
    assert folding.fold(TENANT, {"reason": "one more"}) == {"reason": "one more"}
    assert folding.fold(uuid.UUID(int=3), {"project": "one more"}) == {"project": "one more"}


def test_folding_starts_anew_before_it_remembers_too_much() -> None:
    folding = Folding()
    for number in range(MOST_VALUES + 1):
        folding.fold(TENANT, {"project": f"p{number}"})
    for number in range(MOST_SETS):
        folding.fold(uuid.UUID(int=100 + number), {"project": "x"})
    assert folding.fold(TENANT, {"project": "one more"}) == {"project": "one more"}

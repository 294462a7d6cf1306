"""Replay: a stored context decides to the same bytes, in any process (SPEC 3.3, 10)."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.gate.context import build_context, sum_up
from enforcement.gate.decision import (
    GateContext,
    decide,
    decode_context,
    encode,
    outcome_sha256,
)
from governance.policies.domain import Policy
from tests.builders import (
    NOW,
    a_budget,
    a_context,
    a_cost,
    a_grant,
    a_policy,
    a_sharing,
    an_input,
    some_accounts,
    some_days,
    through_json,
    usd,
)

ROOT = Path(__file__).parents[4]

RULES = [
    ("float", "input.metadata.ratio > 0.1 && input.metadata.ratio < 0.3", "tag"),
    ("whole-float", "input.metadata.whole == 2.0", "tag"),
    ("text", "input.metadata['größe'].startsWith('é')", "tag"),
    ("nested", "input.metadata.a.b[1].c == 'x'", "tag"),
    ("list", "'p5' in input.metadata.families", "require_approval"),
    ("null", "input.metadata.nothing == null", "tag"),
    ("big", "input.metadata.big == 9007199254740991", "tag"),
    ("missing", "input.metadata.absent == 1", "deny"),
    ("fails", "input.metadata.families > 3", "deny"),
    ("micros", "input.estimated_monthly_delta_micros >= 100000000", "tag"),
    ("risk", "'production_environment' in context.risk_factors", "tag"),
    ("time", "context.generated_at.startsWith('2026-11-20T12:00:00')", "tag"),
]
METADATA = {
    "ratio": 0.1 + 0.2 - 0.1,
    "whole": 2.0,
    "größe": "é\u2028\U0001f4b6",
    "a": {"b": [None, {"c": "x"}]},
    "families": ["p5", 1, 1.5, True],
    "nothing": None,
    "big": 2**53 - 1,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
}


def rich_policy(mode: str) -> Policy:
    rules = [
        {"id": name, "when": when, "effect": effect, "message": f"Says {name}."}
        for name, when, effect in RULES
    ]
    return a_policy(
        mode,
        rules=rules,
        thresholds={"prod": {"require_approval_from_usd": "50.00"}},
        freezes=[
            {
                "id": "f",
                "from": "2026-11-20T13:00:00+02:00",
                "to": "2026-11-21T00:00:00Z",
                "effect": "require_approval",
            }
        ],
        exceptions=[
            {
                "id": "e",
                "project_id": "shop",
                "until": "2026-12-01T00:00:00Z",
                "max_monthly_delta_usd": "900.00",
                "reason": "é",
            }
        ],
        approval_routing_rules=[{"id": "r", "risk_levels": ["critical"]}],
    )


def rich_context(**changes: Any) -> GateContext:
    facts: dict[str, Any] = {
        "metadata": METADATA,
        "forced_mode": None,
        "sharing": a_sharing(awaits_approval=True),
        "evaluated_at": NOW.replace(microsecond=1),
        "accounts": some_accounts(
            budgets=(a_budget(1, limit=30), a_budget(2, team="web")),
            grants=(
                a_grant(11, remaining=10, expires_at=NOW + timedelta(days=1, microseconds=7)),
                a_grant(12, pool="emergency", project_id="shop", priority=1),
            ),
            enterprise_ceiling_usd=usd("80000"),
        ),
    }
    return a_context(**facts | changes)


CONTEXTS = {
    "plain": a_context(),
    "rich": rich_context(),
    "forced": rich_context(forced_mode="soft"),
    "unknown": rich_context(cost=a_cost(None), sharing=None),
    "partial": rich_context(cost=a_cost("0.0001", state="partial", reasons=("price_not_found",))),
    "saving": rich_context(cost=a_cost("-12.3400")),
    "no history": rich_context(
        computed=build_context(
            an_input(), sum_up(None, today=NOW.date()), now=NOW, stale_after_days=3
        )
    ),
    "odd history": rich_context(
        computed=build_context(
            an_input(),
            sum_up(some_days("0.0001", "-3", 10**12), today=NOW.date()),
            now=NOW,
            stale_after_days=1,
        )
    ),
}
MODES = ("shadow", "soft", "hard")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONTEXTS)
def test_a_stored_context_decides_to_the_same_bytes(name: str, mode: str) -> None:
    context, policy = CONTEXTS[name], rich_policy(mode)
    stored = encode(context)
    assert encode(decode_context(stored)) == stored
    assert decode_context(stored) == context
    outcome = encode(decide(context, policy))
    again = encode(decide(decode_context(stored), through_json(policy)))
    assert again == outcome
    assert outcome_sha256(again) == outcome_sha256(outcome)


def test_the_rules_really_look_at_the_metadata() -> None:
    outcome = decide(rich_context(), rich_policy("hard"))
    assert outcome.tags == tuple(name for name, _, effect in RULES if effect == "tag"), (
        "every tag is set"
    )
    by_reference = {found.reference: found.code for found in outcome.findings}
    assert by_reference["list"] == "policy_rule_requires_approval"
    assert by_reference["fails"] == "policy_rule_failed"
    assert by_reference["missing"] == "policy_rule_skipped"


@pytest.mark.parametrize(
    ("seed", "zone"), [("0", "UTC"), ("1", "Pacific/Kiritimati"), ("4242", "America/Caracas")]
)
def test_another_process_gives_the_same_bytes(seed: str, zone: str) -> None:
    """Sets and dicts iterate in another order there, and its local time is another."""
    pairs, expected = [], []
    for context in CONTEXTS.values():
        for mode in MODES:
            policy = rich_policy(mode)
            pairs.append((encode(context), msgspec.json.encode(policy).decode()))
            expected.append(encode(decide(context, policy)))
    environment = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
    answered = subprocess.run(
        [sys.executable, "-m", "tests.unit.enforcement.gate.replayed"],
        input=msgspec.json.encode(pairs),
        capture_output=True,
        check=True,
        cwd=ROOT,
        env=environment | {"PYTHONHASHSEED": seed, "TZ": zone},
        timeout=60,
    )
    assert msgspec.json.decode(answered.stdout) == expected


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)
EXPRESSIONS = (
    "input.metadata.a == input.metadata.b",
    "input.metadata.a > 0",
    "input.metadata.a < 0.5",
    "input.metadata.a == 'a'",
    "has(input.metadata.a.b) && input.metadata.a.b == true",
    "size(input.metadata.a) == 1",
    "string(input.metadata.a) == '0'",
    "input.metadata.a in [1, 1.0, '1', true]",
)
ANY_POLICY = a_policy(
    rules=[
        {"id": f"r{place}", "when": when, "effect": "tag", "message": "Tag."}
        for place, when in enumerate(EXPRESSIONS)
    ]
)


@settings(deadline=None, max_examples=300)
@given(metadata=st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3))
def test_whatever_the_metadata_rules_say_the_same_of_the_stored_one(
    metadata: dict[str, Any],
) -> None:
    context = a_context(metadata=metadata)
    stored = encode(context)
    assert encode(decode_context(stored)) == stored
    assert encode(decide(decode_context(stored), ANY_POLICY)) == encode(decide(context, ANY_POLICY))


def test_the_outcome_changes_with_the_context() -> None:
    """The comparison of bytes above would find a difference if there were one."""
    digests = {
        outcome_sha256(encode(decide(context, rich_policy(mode))))
        for context in CONTEXTS.values()
        for mode in MODES
    }
    assert len(digests) > len(CONTEXTS)

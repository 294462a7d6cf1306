"""docs/decisions.md says what the code does: its tables and its example are read and compared."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from enforcement.gate import rules
from enforcement.gate.explanation import REASONS
from tests.builders import (
    a_budget,
    a_grant,
    a_policy,
    an_exposure,
    an_outcome,
    some_accounts,
    usd,
)
from tests.unit.enforcement.gate.test_rules import PAIRS

TEXT = (Path(__file__).parents[4] / "docs" / "decisions.md").read_text()


def table(header: str) -> list[list[str]]:
    """Return the cells of the table that begins with a header, without code marks."""
    after = TEXT.split(header, 1)[1].splitlines()[2:]
    rows = []
    for line in after:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def test_findings_table() -> None:
    effects = defaultdict(set)
    for pair in PAIRS.values():
        effects[pair.code].add(pair.effect)
    # Freezes, rules and verbs have every effect that a policy can name.
    effects["cost_partial"] |= {"deny", "require_approval", "warn"}
    effects[rules.EXCEPTION_APPLIED] = {rules.INFORMS}
    told = {row[0]: (set(row[1].split(", ")), row[2]) for row in table("| code | effect |")}
    assert told == {
        code: (found, "yes" if code in rules._WAIVABLE else "no") for code, found in effects.items()
    }


def test_every_code_that_callers_may_get_is_told_of() -> None:
    of_stages_only = {"no_ceiling_configured", "nothing_to_cover"}
    assert {code for code in REASONS if f"`{code}`" not in TEXT} == of_stages_only


def test_worked_example() -> None:
    accounts = some_accounts(
        budgets=(a_budget(pending_usd=usd(940)),),
        grants=(a_grant(remaining=30), a_grant(12, pool="emergency", remaining=20)),
        exposure=an_exposure(pending_usd=usd(2000)),
        plan_ceiling_usd=usd(50000),
        enterprise_ceiling_usd=usd(80000),
    )
    outcome = an_outcome(accounts=accounts)
    stages = [
        ["" if value is None else str(value) for value in row]
        for row in (
            (
                stage.stage,
                stage.limit_usd,
                stage.used_usd,
                stage.headroom_usd,
                stage.requested_usd,
                stage.consumed_usd,
                stage.status,
                stage.reason_code,
            )
            for stage in outcome.stages
        )
    ]
    assert table("| stage | limit |") == stages
    assert (outcome.decision, outcome.is_holding) == ("REQUIRE_APPROVAL", True)
    held = [str(line.amount_usd) for line in outcome.holds]
    assert held == ["60.0000", "30.0000", "10.0000", "100.0000"]
    automatic = a_policy(credits={"emergency": {"prod": "automatic"}})
    assert an_outcome(automatic, accounts=accounts).decision == "ALLOW_WITH_CREDITS"

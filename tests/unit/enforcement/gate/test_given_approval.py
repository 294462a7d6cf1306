"""What an approval that was given lifts when a question may spend it, and what it does not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from enforcement.gate.decision import GivenApproval, decide, decode_context, encode, is_spending
from tests.builders import a_budget, a_context, a_policy, a_sharing, an_outcome, some_accounts, usd

GIVEN = GivenApproval(
    approval_id="00000000-0000-7000-8000-00000000000a",
    max_monthly_delta_usd=Decimal("120.0000"),
    is_spent=False,
)
ASKS = {"prod": {"require_approval_from_usd": "1.00"}}


def test_it_lifts_what_asked_for_an_approval() -> None:
    policy = a_policy(thresholds=ASKS)
    assert an_outcome(policy).decision == "REQUIRE_APPROVAL"

    outcome = an_outcome(policy, given=GIVEN)

    assert (outcome.decision, outcome.routing) == ("ALLOW", None)
    assert "approval_spent" in outcome.reason_codes
    assert "approval_threshold_reached" not in outcome.reason_codes
    lifted = [found for found in outcome.findings if found.waived_by is not None]
    assert [found.code for found in lifted] == ["approval_threshold_reached"]
    assert lifted[0].waived_by == GIVEN.approval_id


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_it_lifts_no_breach(mode: str) -> None:
    policy = a_policy(modes={"terraform": {"default": mode}})
    accounts = some_accounts(budgets=(a_budget(limit_usd=usd(10)),), grants=())
    context = a_context(accounts=accounts, given=GIVEN)

    outcome = decide(context, policy)

    assert outcome.decision == {"soft": "REQUIRE_APPROVAL", "hard": "DENY"}[mode]
    assert not is_spending(context, outcome)


def test_it_lifts_no_refusal() -> None:
    policy = a_policy(thresholds={"prod": {"deny_from_usd": "1.00"}})
    assert an_outcome(policy, given=GIVEN).decision == "DENY"


def test_it_covers_a_share_that_waits_for_being_spent() -> None:
    sharing = a_sharing(covered_usd=usd(100), family_held_usd=usd(100), awaits_approval=True)
    assert an_outcome(sharing=sharing).decision == "REQUIRE_APPROVAL"
    assert an_outcome(sharing=sharing, given=GIVEN).decision == "ALLOW"


def test_a_stored_context_decides_the_same_again() -> None:
    policy = a_policy(thresholds=ASKS)
    context = a_context(given=GIVEN)
    assert encode(decide(decode_context(encode(context)), policy)) == encode(
        decide(context, policy)
    )
    without = encode(a_context()).replace('"given":null,', "")
    assert decode_context(without) == a_context(), "contexts stored before approvals could be spent"

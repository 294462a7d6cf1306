"""The books after a storm: sums, chain, invariants, and every decision made once more."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from billing.models import Account, Reservation
from enforcement.gate import failsafe
from enforcement.gate.decision import GateContext, Outcome, decide, decode_context, encode
from enforcement.integrity.queries import run_checks
from enforcement.models import Decision, LedgerEntry
from governance.models import PolicyVersion
from governance.policies.document import parse_policy
from governance.policies.domain import Policy
from tests.factories.sums import check_chain, find_differences
from valdrix.kernel import strict_json
from valdrix.kernel.db import reading, snapshot_reading

CREDITS = {"reserved_credit", "emergency_credit"}
CHUNK = 500
SMALL_ENTRIES = 3_500
STALE = "decided on what was no longer so"


def check_books(tenant_id: uuid.UUID) -> dict[str, int]:
    """Check a tenant's sums, chain and invariants; return how much was looked at."""
    entries = check_chain(tenant_id)
    # The tests' own sums take time that grows with the square of the charges.
    if entries <= SMALL_ENTRIES:
        assert find_differences(tenant_id) == []
    report = run_checks(tenant_id)
    assert report.status == "sound", [one.to_document() for one in report.violated]
    return {"ledger entries verified": entries, "rows inspected by integrity": report.inspected}


@dataclass
class Totals:
    """What the decisions so far hold, folded in ledger order; amounts in US dollars.

    :ivar held: by account, what lines hold of it.
    :ivar grants: by grant, its total and its project.
    """

    grants: dict[str, tuple[Decimal, str | None]]
    held: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def check(self, context: GateContext) -> None:
        """Check that a decision saw exactly what the decisions before it on the ledger left."""
        accounts = context.accounts
        for budget in accounts.budgets:
            assert budget.pending_usd == self.held[budget.account_id], f"{STALE}: {budget}"
        exposure = accounts.exposure
        assert exposure.pending_usd == self.held[exposure.account_id], f"{STALE}: {exposure}"
        project = context.gate_input.project_id
        expected = {
            grant: total - self.held[grant]
            for grant, (total, bound_to) in self.grants.items()
            if bound_to in {None, project} and total > self.held[grant]
        }
        seen = {one.account_id: one.remaining_usd for one in accounts.grants}
        assert seen == expected, f"{STALE}: {seen}, not {expected}"

    def apply(self, outcome: Outcome) -> None:
        """Add what a decision holds."""
        if not outcome.is_shadow:
            for hold in outcome.holds:
                self.held[hold.account_id] += hold.amount_usd


@dataclass
class Replay:
    """All decisions of a tenant made once more, in ledger order.

    :ivar decisions: how many gave the same outcome, by decision.
    :ivar fail_safe: how many could not be evaluated then, by reason; they hold nothing.
    :ivar totals: what is held in the end.
    """

    decisions: Counter[str]
    fail_safe: Counter[str]
    totals: Totals


def replay(tenant_id: uuid.UUID, *, explaining: bool) -> Replay:
    """Decide every decision of a tenant again from its stored context, in ledger order.

    :param explaining: also check that each one saw what those before it left behind: right
        where nothing but gates has moved the accounts.
    """
    policies = _policies(tenant_id)
    found = Replay(Counter(), Counter(), Totals(_grants(tenant_id)))
    for decision in _in_ledger_order(tenant_id):
        if decision.is_fail_safe:
            found.fail_safe[_check_fail_safe(decision)] += 1
            continue
        context = decode_context(decision.context_json)
        outcome = decide(context, policies[decision.policy_version])
        assert encode(outcome) == decision.outcome_json, decision.pk
        if explaining:
            found.totals.check(context)
        found.totals.apply(outcome)
        found.decisions[outcome.decision] += 1
    return found


def check_held(tenant_id: uuid.UUID, totals: Totals) -> None:
    """Check that the kept totals are what the folded decisions hold."""
    with reading(tenant_id):
        accounts = list(Account.objects.filter(tenant_id=tenant_id))
    for account in accounts:
        kept = account.reserved_usd if account.kind == "grant" else account.pending_usd
        assert kept == totals.held[str(account.pk)], account


def _check_fail_safe(decision: Decision) -> str:
    assert decision.decision == failsafe.DECISION_BY_MODE[decision.mode]
    (reason,) = decision.reason_codes
    assert reason in failsafe.REASONS
    with reading(decision.tenant_id):
        assert not Reservation.objects.filter(decision_id=decision.pk).exists()
    return str(reason)


def _in_ledger_order(tenant_id: uuid.UUID) -> Iterator[Decision]:
    """Give every decision in the order of its ledger entry, each exactly once."""
    with snapshot_reading(tenant_id):
        ids = list(
            LedgerEntry.objects.filter(tenant_id=tenant_id, event="decision_made")
            .order_by("sequence")
            .values_list("decision_id", flat=True)
        )
        count = Decision.objects.filter(tenant_id=tenant_id).count()
    assert len(ids) == len(set(ids)) == count
    for start in range(0, count, CHUNK):
        part = ids[start : start + CHUNK]
        with reading(tenant_id):
            rows = Decision.objects.in_bulk(part)
        yield from (rows[decision_id] for decision_id in part)


def _policies(tenant_id: uuid.UUID) -> dict[int, Policy]:
    with reading(tenant_id):
        versions = list(PolicyVersion.objects.filter(tenant_id=tenant_id))
    return {0: parse_policy({})} | {
        one.number: parse_policy(strict_json.loads(one.canonical_json.encode())) for one in versions
    }


def _grants(tenant_id: uuid.UUID) -> dict[str, tuple[Decimal, str | None]]:
    with reading(tenant_id):
        rows = list(Account.objects.filter(tenant_id=tenant_id, kind="grant"))
    return {str(row.pk): (row.total_usd, row.project_id) for row in rows}

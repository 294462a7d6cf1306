"""What the page of one approval shows: all that a person needs to judge, on one screen."""

from __future__ import annotations

import calendar
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
from django.db.models import Q, Sum
from django.http import HttpRequest
from django.urls import reverse

from billing.accounts.domain import BUDGET, month_of
from billing.costs.models import DailyCost
from billing.models import Account, ReservationLine
from billing.reservations.models import PENDING as LINE_PENDING
from enforcement.admin import labels
from enforcement.admin.accounts import attach_states, scope_of
from enforcement.admin.approval_acts import APPROVE, ASK_AGAIN, DENY, WITHDRAW, is_judge
from enforcement.admin.decision_page import StageRow, stage_rows
from enforcement.admin.people import Names, find_names, principal_of
from enforcement.models import Decision
from enforcement.review.judging import is_second_factor_missing, mark_of
from enforcement.review.reading import Seen
from governance.admin.approvals import needs_of, routing_steps, status_badge
from governance.approvals.models import APPROVED, APPROVES, CONSUMED, DENIED, PENDING, Approval
from valdrix.kernel.admin_charts import Chart, Line, build_chart
from valdrix.kernel.admin_display import (
    BAD,
    GOOD,
    NEUTRAL,
    NOTHING,
    WARN,
    Bar,
    age,
    badge,
    build_bar,
    delta_usd,
    mono,
    pretty_json,
    to_decimal,
    usd,
    utc,
    words,
)
from valdrix.kernel.money import EXACT, MONTHLY_PLACES, ZERO, round_amount

_TONES: Final = {PENDING: "warn", APPROVED: "good", CONSUMED: "info", DENIED: "bad"}
_RISKS: Final = {"low": GOOD, "medium": NEUTRAL, "high": WARN, "critical": BAD}
_MOST_BUDGETS: Final = 8
_MOST_PEOPLE: Final = 12

Rows = list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One budget that the change is charged to, before and after it."""

    name: str
    url: str
    before: Bar
    after: Bar
    left_before: str
    left_after: str
    limit: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class ApprovalPage:
    """The whole page.

    :ivar verdicts: the acts that the person may do, with the addresses of their forms.
    :ivar told: why the person cannot approve, or what they have to know before.
    """

    title: str
    tone: str
    badge: Any
    facts: Rows
    told: Sequence[str]
    mark: str
    reason_required: bool
    ceiling_required: bool
    verdicts: Mapping[str, str]
    change: Rows
    metadata: str | None
    reasons: Sequence[Mapping[str, Any]]
    budgets: Sequence[BudgetRow]
    chart: Chart | None
    spending: Rows
    risk_factors: Sequence[str]
    stages: Sequence[StageRow]
    people: Sequence[tuple[str, str]]
    more_people: int
    needs: str
    reviews: Sequence[Mapping[str, Any]]
    trace: Sequence[tuple[str, str]]
    rule: str
    decision_url: str


def build_approval_page(request: HttpRequest, seen: Seen, *, now: datetime) -> ApprovalPage:
    """Return what an approval's page shows to a person, inside the tenant's transaction."""
    approval, decision = seen.approval, decision_of(seen)
    response = orjson.loads(decision.response_json)
    computed = response.get("computed_context") or {}
    question = orjson.loads(decision.context_json).get("gate_input") or {}
    approval.seen = seen  # type: ignore[attr-defined]
    names = find_names(
        approval.tenant_id,
        {approval.requester_person_id, *(one.person_id for one in seen.reviews)},
        [approval.requested_by, decision.actor],
    )
    budgets = _budgets(decision, question, approval.monthly_delta_usd, now)
    return ApprovalPage(
        title=_title(seen),
        tone=_TONES.get(seen.status, "neutral"),
        badge=status_badge(seen.status),
        facts=_facts(seen, decision, names, now),
        told=_told(request, seen),
        mark=mark_of(approval),
        reason_required=seen.reason_required,
        ceiling_required=seen.ceiling_required,
        verdicts=_verdicts(approval),
        change=_change(decision, response, question),
        metadata=pretty_json(question["metadata"]) if question.get("metadata") else None,
        reasons=(response.get("explanation") or {}).get("reason_codes") or (),
        budgets=budgets,
        chart=_chart(decision, computed, now),
        spending=_spending(computed),
        risk_factors=[words(name) for name in computed.get("risk_factors", ())],
        stages=stage_rows(response),
        people=[
            (one.username, _standing(one.reviewer, approval))
            for one in (seen.eligible or ())[:_MOST_PEOPLE]
        ],
        more_people=max(0, len(seen.eligible or ()) - _MOST_PEOPLE),
        needs=needs_of(approval),
        reviews=[_review(one, names) for one in seen.reviews],
        trace=routing_steps(approval),
        rule=approval.routing_rule_id or "none matched: the environment's own terms",
        decision_url=reverse("admin:enforcement_decision_change", args=[str(decision.pk)]),
    )


def decision_of(seen: Seen) -> Decision:
    """Return the decision that an approval is about: the one that sets its amount."""
    if seen.waiting:
        return seen.waiting[0]
    return Decision.objects.get(tenant_id=seen.approval.tenant_id, pk=seen.approval.decision_id)


def risk_of(decision: Decision) -> Any:
    """Return the risk that was computed for a decision, as a badge."""
    computed = orjson.loads(decision.response_json).get("computed_context") or {}
    name = computed.get("risk_class")
    return badge(name, _RISKS.get(name, NEUTRAL)) if name else NOTHING


def _title(seen: Seen) -> str:
    approval = seen.approval
    if approval.monthly_delta_usd is None:
        amount = "An unknown amount"
    else:
        amount = f"{delta_usd(approval.monthly_delta_usd)} USD"
    return f"{amount} a month for {approval.project_id} / {approval.environment}"


def _facts(seen: Seen, decision: Decision, names: Names, now: datetime) -> Rows:
    approval = seen.approval
    rows: Rows = [
        ("Asked by", names.principal(approval.requested_by, approval.requester_person_id)),
        ("Waits", f"{age(now - approval.requested_at)}, since {utc(approval.requested_at)}"),
        ("Risk", risk_of(decision)),
        ("Given", f"{len(seen.bench.given)} of {seen.bench.terms.needed}"),
    ]
    if seen.status in {PENDING, APPROVED}:
        rows.append(("Expires", f"in {age(approval.expires_at - now)}, {utc(approval.expires_at)}"))
    if approval.max_monthly_delta_usd is not None:
        rows.append(("Approved up to", f"{usd(approval.max_monthly_delta_usd)} USD a month"))
    if approval.closed_at is not None:
        rows.append(("Ended", utc(approval.closed_at)))
    if len(seen.waiting) > 1:
        rows.append(("Decisions waiting", str(len(seen.waiting))))
    return rows


def _told(request: HttpRequest, seen: Seen) -> list[str]:
    """Return what a person has to know before they press anything."""
    if seen.status != PENDING:
        return []
    bench = seen.bench
    if not is_judge(seen):
        asked = bench.reviewer.person_id in bench.terms.requesters
        if asked and bench.terms.is_separate:
            return ["You asked for this; somebody else has to judge it."]
        return ["Others judge this: the names are below."]
    told = []
    if any(one.person_id == bench.reviewer.person_id for one in bench.reviews):
        told.append("You have approved this already; others have to as well.")
    elif not seen.may_approve:
        told.append("Only people of other groups are still missing. You can deny it.")
    elif is_second_factor_missing(principal_of(request), seen.approval):
        told.append(
            "The policy wants a second factor for this. Set one up under “Your sign-in”, or sign"
            " in again with its code."
        )
    if seen.reason_required and seen.may_approve:
        told.append("Approving this needs a reason: emergency credits or an unknown cost.")
    return told


def _verdicts(approval: Any) -> dict[str, str]:
    return {
        act.name.replace("-", "_"): reverse(
            f"admin:governance_approval_{act.name}", args=[str(approval.pk)]
        )
        for act in (APPROVE, DENY, WITHDRAW, ASK_AGAIN)
        if act.applies(approval)
    }


def _change(decision: Decision, response: Mapping[str, Any], question: Mapping[str, Any]) -> Rows:
    reasons = ", ".join(words(one) for one in response.get("cost_state_reasons") or ())
    said = response.get("environment_original")
    environment = decision.environment
    if said is not None and said != environment:
        environment = f"{environment} (asked as “{said}”)"
    digest = "computed" if question.get("change_digest_is_computed") else "declared"
    rows: Rows = [
        ("Action", decision.action),
        ("Resource", decision.resource_reference or NOTHING),
        ("Project", decision.project_id),
        ("Environment", environment),
        ("Team", question.get("team")),
        ("Monthly delta", f"{delta_usd(decision.monthly_delta_usd)} USD"),
        ("Hourly delta", f"{delta_usd(decision.hourly_delta_usd)} USD"),
        ("Cost", labels.cost_badge(decision.cost_state)),
        ("Cost reasons", reasons),
        ("Mode", labels.mode_badge(decision.mode)),
        ("Run and stage", " · ".join(filter(None, (decision.run_id, question.get("stage"))))),
        (f"Change digest ({digest})", mono(question.get("change_digest"))),
    ]
    return [(label, value) for label, value in rows if value and value != NOTHING]


def _budgets(
    decision: Decision, question: Mapping[str, Any], delta: Decimal | None, now: datetime
) -> list[BudgetRow]:
    """Return the budgets that the change is charged to, as they stand now."""
    accounts = Account.objects.filter(
        Q(environment__isnull=True) | Q(environment=decision.environment),
        Q(team__isnull=True) | Q(team=question.get("team")),
        tenant_id=decision.tenant_id,
        kind=BUDGET,
        active=True,
        project_id=decision.project_id,
    )
    rows = attach_states(decision.tenant_id, list(accounts.order_by("id")[:_MOST_BUDGETS]), now=now)
    held = _held(decision, [row.id for row in rows])
    return [_budget(row, held.get(row.id, ZERO), max(ZERO, delta or ZERO)) for row in rows]


def _held(decision: Decision, account_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Decimal]:
    """Return what the decision holds of each account: it is counted as taken already."""
    rows = ReservationLine.objects.filter(
        tenant_id=decision.tenant_id,
        reservation_id=decision.pk,
        account_id__in=account_ids,
        state=LINE_PENDING,
    )
    return dict(rows.values_list("account_id").annotate(total=Sum("amount_usd")))


def _budget(row: Any, held: Decimal, delta: Decimal) -> BudgetRow:
    state, limit = row.state, row.state.limit_usd
    taken = max(ZERO, state.used_usd(with_shadow=False) - held)
    room = max(ZERO, limit - taken)
    fits, over = min(delta, room), max(ZERO, delta - room)
    name = scope_of(row)
    after_label = f"{name} after this change: {usd(taken + delta)} of {usd(limit)} USD taken"
    if over > 0:
        after_label += f"; {usd(over)} USD do not fit"
    return BudgetRow(
        name=name,
        url=reverse("admin:billing_account_change", args=[str(row.id)]),
        before=build_bar(
            [("used", taken)],
            limit=limit,
            label=f"{name} before this change: {usd(taken)} of {usd(limit)} USD taken",
        ),
        after=build_bar(
            [("used", taken), ("this", fits), ("over", over)], limit=limit, label=after_label
        ),
        left_before=usd(room),
        left_after=usd(room - fits),
        limit=usd(limit),
        is_over=over > 0,
    )


def _chart(decision: Decision, computed: Mapping[str, Any], now: datetime) -> Chart | None:
    """Return the project's spending of this month, day by day, and where it is heading."""
    first = month_of(now)
    length = calendar.monthrange(first.year, first.month)[1]
    days = [first + timedelta(days=number) for number in range(length)]
    rows = DailyCost.objects.filter(
        tenant_id=decision.tenant_id, project_id=decision.project_id, date__range=(first, days[-1])
    )
    spent = dict(rows.values_list("date").annotate(total=Sum("amount_usd")).order_by("date"))
    if not spent:
        return None
    until = min(now.astimezone(UTC).date(), max(spent))
    values = _running(spent, days, until)
    last = (until - first).days
    total = values[last] or ZERO
    forecast = to_decimal(computed.get("forecast_eom_usd"))
    lines = [Line("spent", "spent", values, is_area=True)]
    label = f"{decision.project_id} has spent {usd(total)} USD this month"
    if forecast is not None and forecast > 0:
        lines.append(
            Line("forecast", "forecast", _heading(total, forecast, last, length), is_dashed=True)
        )
        label += f", and is heading for {usd(forecast)}"
    return build_chart(
        lines, days=[f"{day:%d %b}" for day in days], label=label, today=_day_of(now, first)
    )


def _day_of(now: datetime, first: date) -> int:
    return (now.astimezone(UTC).date() - first).days


def _running(
    spent: Mapping[date, Decimal], days: Sequence[date], until: date
) -> list[Decimal | None]:
    total, values = ZERO, []
    for day in days:
        total += spent.get(day, ZERO)
        values.append(total if day <= until else None)
    return values


def _heading(total: Decimal, forecast: Decimal, last: int, length: int) -> list[Decimal | None]:
    """Return a straight line from what is spent to the forecast of the month's end."""
    steps = length - 1 - last
    values: list[Decimal | None] = [None] * last
    if steps == 0:
        return [*values, forecast]
    for place in range(steps + 1):
        grown = EXACT.multiply(forecast - total, Decimal(place))
        values.append(total + round_amount(grown / steps, places=MONTHLY_PLACES))
    return values


def _spending(computed: Mapping[str, Any]) -> Rows:
    if not computed:
        return []
    anomaly = words(computed["anomaly_kind"])
    if computed["anomaly_kind"] != "none":
        anomaly += f" of {usd(computed['anomaly_delta_usd'])} USD"
    return [
        ("Month to date, when asked", f"{usd(computed['mtd_spend_usd'])} USD"),
        ("Forecast, when asked", f"{usd(computed['forecast_eom_usd'])} USD"),
        ("Burn rate", f"{usd(computed['burn_rate_daily_usd'])} USD a day"),
        ("Anomaly", anomaly),
        ("Cost data", words(computed["data_source_mode"])),
    ]


def _standing(reviewer: Any, approval: Approval) -> str:
    """Return the role that somebody judges in, and for which of the demanded groups."""
    groups = ", ".join(sorted(reviewer.groups.intersection(approval.reviewer_groups_all)))
    return f"{reviewer.role}; {groups}" if groups else str(reviewer.role)


def _review(review: Any, names: Names) -> dict[str, Any]:
    is_yes = review.verdict == APPROVES
    ceiling = review.max_monthly_delta_usd
    return {
        "badge": badge("approved" if is_yes else "denied", GOOD if is_yes else BAD),
        "who": names.person(review.person_id),
        "when": utc(review.reviewed_at),
        "groups": ", ".join(review.groups),
        "reason": review.reason or NOTHING,
        "amount": f"up to {usd(ceiling)}"
        if ceiling is not None
        else delta_usd(review.monthly_delta_usd),
    }

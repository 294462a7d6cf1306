"""What the page of one decision shows, from its stored response and the rows that it made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import orjson
from django.urls import reverse

from billing.models import Reservation, ReservationLine
from billing.reservations.models import ACTIVE, PENDING, POSTED
from enforcement.admin import labels
from enforcement.ledger.queries import EntryFilter, find_entries
from enforcement.models import Decision
from governance.admin.approvals import approval_rows, routing_steps
from governance.identity.domain import ADMIN, OWNER
from governance.identity.queries import find_membership
from governance.models import Approval
from valdrix.kernel.admin_display import (
    GOOD,
    INFO,
    NEUTRAL,
    NOTHING,
    WARN,
    Bar,
    badge,
    build_bar,
    delta_usd,
    link,
    mono,
    pretty_json,
    to_decimal,
    usd,
    utc,
    words,
)
from valdrix.kernel.money import ZERO

_SHOWN_ENTRIES: Final = 100
_SEES_RECORDS: Final = (ADMIN, OWNER)
_LINE_TONES: Final = {PENDING: INFO, POSTED: GOOD}

Rows = list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of the waterfall as a row of the table."""

    name: str
    badge: str
    bar: Bar | None
    used: str
    requested: str
    covered: str
    headroom: str
    limit: str
    reason: str


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One thing that a rule found."""

    title: str
    badge: str
    detail: str
    reference: str
    waived_by: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page; sections that the person's role may not see are None.

    :ivar is_incomplete: the stored response lacks its explanation: nothing is made up for it.
    """

    summary: str
    tone: str
    badge: Any
    facts: Rows
    stages: Sequence[StageRow]
    reasons: Sequence[Mapping[str, Any]]
    first_limiting: str | None
    findings: Sequence[FindingRow]
    inputs: Rows
    metadata: str | None
    computed: Rows
    risk_factors: Sequence[str]
    lineage: Rows
    response: str
    is_incomplete: bool
    approval: Rows | None = None
    approval_trace: Sequence[tuple[str, str]] = ()
    reservation: Rows | None = None
    lines: Sequence[Mapping[str, Any]] = field(default_factory=list)
    entries: Sequence[Mapping[str, Any]] | None = None


def build_page(decision: Decision, *, role: str, viewer_id: int) -> Page:
    """Return what a decision's page shows to a person.

    :param role: the person's in the decision's tenant: records are for admins and owners.
    :param viewer_id: the person's id: who asked may see what became of the approval.
    """
    response = orjson.loads(decision.response_json)
    question = orjson.loads(decision.context_json).get("gate_input") or {}
    explanation = response.get("explanation") or {}
    sees_records = role in _SEES_RECORDS
    approval = _find_approval(decision)
    if approval is not None and not sees_records and approval.requester_person_id != viewer_id:
        approval = None
    reservation = _find_reservation(decision) if sees_records else None
    return Page(
        summary=explanation.get("summary") or labels.decision_label(decision.decision),
        tone=labels.decision_tone(decision.decision),
        badge=labels.decision_badge(decision.decision),
        facts=_facts(decision, response),
        stages=stage_rows(response),
        reasons=_reasons(decision, explanation),
        first_limiting=_first_limiting(explanation),
        findings=[_finding_row(one) for one in response.get("findings") or ()],
        inputs=_inputs(decision, response, question),
        metadata=pretty_json(question["metadata"]) if question.get("metadata") else None,
        computed=_computed(response.get("computed_context") or {}),
        risk_factors=[
            words(name) for name in (response.get("computed_context") or {}).get("risk_factors", ())
        ],
        lineage=_lineage(decision),
        response=pretty_json(decision.response_json),
        is_incomplete=not explanation,
        approval=approval_rows(approval, with_link=sees_records) if approval else None,
        approval_trace=routing_steps(approval) if approval else (),
        reservation=_reservation_rows(reservation, response) if reservation else None,
        lines=[_line_row(line) for line in _find_lines(reservation)] if reservation else (),
        entries=_entries(decision) if sees_records else None,
    )


def _facts(decision: Decision, response: Mapping[str, Any]) -> Rows:
    """Return what the head of the page says beside the summary."""
    rows: Rows = [
        ("Change a month", f"{delta_usd(decision.monthly_delta_usd)} USD"),
        ("Mode", labels.mode_badge(decision.mode)),
        ("Project", decision.project_id),
        ("Environment", decision.environment),
        ("Made at", utc(decision.created_at)),
        ("Answered in", f"{response['latency_ms']} ms" if "latency_ms" in response else NOTHING),
    ]
    if decision.would_have_been is not None:
        rows.append(("Hard mode would say", labels.decision_badge(decision.would_have_been)))
    if decision.is_fail_safe:
        rows.append(("Fail-safe", badge("answered without evaluation", WARN)))
    return rows


def _reasons(decision: Decision, explanation: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    explained: Sequence[Mapping[str, Any]] = explanation.get("reason_codes") or ()
    if explained:
        return explained
    return [{"code": code, "title": labels.reason_title(code)} for code in decision.reason_codes]


def _first_limiting(explanation: Mapping[str, Any]) -> str | None:
    stage = explanation.get("first_limiting_stage")
    return labels.stage_label(stage) if stage else None


def stage_rows(response: Mapping[str, Any]) -> list[StageRow]:
    """Return the stages of a stored response's waterfall."""
    return [_stage_row(stage) for stage in response.get("entitlement_waterfall") or ()]


def _stage_row(stage: Mapping[str, Any]) -> StageRow:
    limit, headroom = to_decimal(stage["limit_usd"]), to_decimal(stage["headroom_usd"])
    used = to_decimal(stage["used_usd"]) or ZERO
    requested = to_decimal(stage["requested_usd"]) or ZERO
    covered = to_decimal(stage["consumed_usd"]) or ZERO
    name, reason = labels.stage_label(stage["stage"]), stage["reason_code"]
    return StageRow(
        name=name,
        badge=labels.stage_badge(stage["status"]),
        bar=_stage_bar(
            name, limit=limit, used=used, covered=covered, over=max(ZERO, requested - covered)
        ),
        used=usd(used),
        requested=usd(requested),
        covered=usd(covered),
        headroom="no limit" if headroom is None else usd(headroom),
        limit="no limit" if limit is None else usd(limit),
        reason=labels.reason_title(reason) if reason else "",
    )


def _stage_bar(
    name: str, *, limit: Decimal | None, used: Decimal, covered: Decimal, over: Decimal
) -> Bar | None:
    """Return a stage's bar; a stage without a limit, or without anything in it, has none."""
    if limit is None or (limit == 0 and used + covered + over == 0):
        return None
    label = f"{name}: used {usd(used)}, this change {usd(covered)} of a limit of {usd(limit)} USD"
    if over > 0:
        label += f"; {usd(over)} USD do not fit"
    return build_bar([("used", used), ("this", covered), ("over", over)], limit=limit, label=label)


def _finding_row(finding: Mapping[str, Any]) -> FindingRow:
    return FindingRow(
        title=labels.reason_title(finding["code"]),
        badge=labels.effect_badge(finding["effect"]),
        detail=finding["detail"],
        reference=finding.get("reference") or "",
        waived_by=finding.get("waived_by"),
    )


def _inputs(decision: Decision, response: Mapping[str, Any], question: Mapping[str, Any]) -> Rows:
    environment = decision.environment
    said = response.get("environment_original")
    if said is not None and said != environment:
        environment = f"{environment} (asked as “{said}”)"
    reasons = ", ".join(words(one) for one in response.get("cost_state_reasons") or ())
    person = find_membership(decision.tenant_id, decision.person_id)
    digest_kind = "computed" if question.get("change_digest_is_computed") else "declared"
    rows: Rows = [
        ("Source", words(decision.source)),
        ("Project", decision.project_id),
        ("Environment", environment),
        ("Action", decision.action),
        ("Resource", decision.resource_reference or NOTHING),
        ("Team", question.get("team")),
        ("Monthly delta", f"{delta_usd(decision.monthly_delta_usd)} USD"),
        ("Hourly delta", f"{delta_usd(decision.hourly_delta_usd)} USD"),
        ("Cost", labels.cost_badge(decision.cost_state)),
        ("Cost reasons", reasons),
        ("Run and stage", " · ".join(filter(None, (decision.run_id, question.get("stage"))))),
        (f"Change digest ({digest_kind})", _mono(question.get("change_digest"))),
        ("Parent decision", _decision_link(question.get("parent_decision_id"))),
        ("Asked by", mono(decision.actor)),
        (
            "Responsible person",
            person.user.get_username() if person else f"person {decision.person_id}, not a member",
        ),
        ("Idempotency key", _mono(decision.idempotency_key)),
    ]
    return [(label, value) for label, value in rows if value]


def _computed(computed: Mapping[str, Any]) -> Rows:
    if not computed:
        return []
    tone = {"low": GOOD, "medium": NEUTRAL}.get(computed["risk_class"], WARN)
    latest = computed["latest_cost_date"] or "no costs ingested"
    anomaly = words(computed["anomaly_kind"])
    if computed["anomaly_kind"] != "none":
        anomaly += f" of {usd(computed['anomaly_delta_usd'])} USD ({computed['anomaly_percent']} %)"
    return [
        ("Risk", badge(f"{computed['risk_class']} ({computed['risk_score']} of 100)", tone)),
        ("Month to date", f"{usd(computed['mtd_spend_usd'])} USD"),
        ("Burn rate", f"{usd(computed['burn_rate_daily_usd'])} USD a day"),
        ("Forecast for the month", f"{usd(computed['forecast_eom_usd'])} USD"),
        ("Anomaly", anomaly),
        (
            "Days with costs",
            f"{computed['observed_cost_days']} of {computed['month_elapsed_days']} so far",
        ),
        ("Newest costs", latest),
        ("Cost data", words(computed["data_source_mode"])),
        ("Rules", f"context version {computed['context_version']}"),
    ]


def _lineage(decision: Decision) -> Rows:
    number = decision.policy_version
    policy: Any = "none published: the empty policy, the strictest"
    if number:
        url = reverse("admin:governance_policyversion_change", args=[str(number)])
        policy = link(url, f"version {number}")
    return [
        ("Policy", policy),
        ("Policy schema", decision.policy_document_schema_version),
        ("Policy SHA-256", mono(decision.policy_document_sha256)),
        ("Request fingerprint", mono(decision.request_fingerprint)),
        ("Change fingerprint", mono(decision.change_fingerprint)),
        ("Outcome SHA-256", mono(decision.outcome_sha256)),
        ("Engine", decision.engine_version),
        ("Decision id", mono(str(decision.id))),
    ]


def _find_approval(decision: Decision) -> Approval | None:
    if decision.approval_request_id is None:
        return None
    rows = Approval.objects.filter(tenant_id=decision.tenant_id)
    return rows.filter(id=decision.approval_request_id).first()


def _find_reservation(decision: Decision) -> Reservation | None:
    rows = Reservation.objects.select_related("charge").filter(tenant_id=decision.tenant_id)
    return rows.filter(decision_id=decision.id).first()


def _find_lines(reservation: Reservation) -> list[ReservationLine]:
    rows = ReservationLine.objects.select_related("account").filter(
        tenant_id=reservation.tenant_id, reservation=reservation
    )
    return list(rows.order_by("position"))


def _reservation_rows(reservation: Reservation, response: Mapping[str, Any]) -> Rows:
    tone = INFO if reservation.state == ACTIVE else NEUTRAL
    rows: Rows = [
        ("State", badge(reservation.state, tone)),
        ("Own part", f"{usd(reservation.own_usd)} USD"),
        ("Reserved at", utc(reservation.reserved_at)),
        ("Settled by itself after", utc(reservation.due_at)),
    ]
    if reservation.charge.is_shadow:
        rows.append(("Shadow", "counts in shadow totals only and limits nobody"))
    if response.get("reservation_shared"):
        rows.append(("Shared, whole family", f"{usd(response['shared_reserved_usd'])} USD"))
    return rows


def _line_row(line: ReservationLine) -> dict[str, Any]:
    account = line.account
    name = account.project_id or "all projects"
    if account.environment:
        name += f" / {account.environment}"
    url = reverse("admin:billing_account_change", args=[str(account.id)])
    return {
        "account": link(
            url, f"{account.kind}: {name}" if account.kind != "exposure" else "exposure"
        ),
        "kind": words(line.kind),
        "amount": usd(line.amount_usd),
        "posted": usd(line.posted_usd),
        "state": badge(line.state, _LINE_TONES.get(line.state, NEUTRAL)),
        "month": f"{line.month:%Y-%m}",
    }


def _entries(decision: Decision) -> list[dict[str, Any]]:
    wanted = EntryFilter(decision_id=decision.id, newest_first=False)
    rows = find_entries(decision.tenant_id, wanted, limit=_SHOWN_ENTRIES)
    return [
        {
            "sequence": link(
                reverse("admin:enforcement_ledgerentry_change", args=[str(row.sequence)]),
                str(row.sequence),
            ),
            "event": words(row.event),
            "at": utc(row.at),
            "amount": usd(row.amount_usd),
            "hash": bytes(row.entry_hash).hex(),
        }
        for row in rows
    ]


def _mono(text: str | None) -> Any:
    return mono(text) if text else None


def _decision_link(decision_id: str | None) -> Any:
    if not decision_id:
        return None
    return link(reverse("admin:enforcement_decision_change", args=[decision_id]), decision_id)

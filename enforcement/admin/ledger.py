"""The console's list of ledger entries, and the page of one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from enforcement.admin import labels
from enforcement.decisions.models import DECISIONS
from enforcement.ledger import domain as ledger
from enforcement.models import Decision, LedgerEntry
from governance.identity.domain import ADMIN, OWNER
from valdrix.kernel.admin import TenantModelAdmin, column_filter, seat_of, typed_filter
from valdrix.kernel.admin_display import (
    NOTHING,
    Panel,
    delta_usd,
    link,
    mono,
    pretty_json,
    short,
    usd,
    utc,
    words,
)

EVENTS: Final = (
    ledger.DECISION_MADE,
    ledger.RESERVED,
    ledger.OVERRUN_RESERVED,
    ledger.CONFIRMED,
    ledger.RECONCILED,
    ledger.RELEASED,
    ledger.APPROVAL_REQUESTED,
    ledger.APPROVAL_JOINED,
    ledger.APPROVAL_GIVEN,
    ledger.APPROVAL_APPROVED,
    ledger.APPROVAL_DENIED,
    ledger.APPROVAL_WITHDRAWN,
    ledger.APPROVAL_EXPIRED,
    ledger.APPROVAL_CONSUMED,
    ledger.TOKEN_ISSUED,
    ledger.TOKEN_REVOKED,
    ledger.TOKEN_CONSUMED,
    ledger.POLICY_PUBLISHED,
    ledger.MODE_FORCED,
    ledger.BUDGET_CREATED,
    ledger.BUDGET_CHANGED,
    ledger.CREDIT_GRANTED,
    ledger.CREDIT_VOIDED,
)
_MOST_DECISIONS: Final = 5000


def _since(request: HttpRequest, rows: QuerySet[Any], text: str) -> QuerySet[Any]:
    moment = _read_moment(text)
    return rows.none() if moment is None else rows.filter(at__gte=moment)


def _until(request: HttpRequest, rows: QuerySet[Any], text: str) -> QuerySet[Any]:
    moment = _read_moment(text)
    return rows.none() if moment is None else rows.filter(at__lt=moment)


def _of_decision(request: HttpRequest, rows: QuerySet[Any], text: str) -> QuerySet[Any]:
    decision_id = _read_id(text)
    return rows.none() if decision_id is None else rows.filter(decision_id=decision_id)


def _of_approval(request: HttpRequest, rows: QuerySet[Any], text: str) -> QuerySet[Any]:
    """Return the entries that name an approval, by way of its decisions: those have an index."""
    approval_id = _read_id(text)
    if approval_id is None:
        return rows.none()
    asking = Decision.objects.filter(
        tenant_id=seat_of(request).tenant_id, approval_request_id=approval_id
    )
    return rows.filter(approval_request_id=approval_id, decision_id__in=asking.values("pk"))


def _of_resource(request: HttpRequest, rows: QuerySet[Any], text: str) -> QuerySet[Any]:
    """Return the entries of the newest decisions about a resource, which entries do not name."""
    about = Decision.objects.filter(
        tenant_id=seat_of(request).tenant_id, resource_reference=text
    ).order_by("-pk")
    return rows.filter(decision_id__in=about.values("pk")[:_MOST_DECISIONS])


def _read_moment(text: str) -> datetime | None:
    """Return the moment that a field of date and time spells, which is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else None


def _read_id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


class LedgerEntryAdmin(TenantModelAdmin):
    """The hash chain, newest entry first. Addresses use the sequence, which is the tenant's own."""

    roles = (ADMIN, OWNER)
    list_title = "Ledger"
    url_field = "sequence"
    ordering = ("-sequence",)
    deferred = ("canonical", "prev_hash")
    empty_text = "No entry matches. The first decision or change of a budget begins the chain."
    search_fields = ("sequence",)
    search_help_text = "Sequence number, decision id, or the whole name of a project"
    list_display = ("place", "when", "what", "about", "amount", "answer", "own_hash")
    list_display_links = ("place",)
    list_filter = (
        column_filter("event", "event", EVENTS, label=words),
        column_filter("decision", "decision", DECISIONS, label=labels.decision_label),
        typed_filter("since", "from, UTC", _since, input_type="datetime-local"),
        typed_filter("until", "until, UTC", _until, input_type="datetime-local"),
        typed_filter("decision_id", "decision id", _of_decision),
        typed_filter("approval", "approval id", _of_approval),
        typed_filter("resource", "resource", _of_resource),
    )

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the entry at this place, or those of a decision or a project."""
        if term.isascii() and term.isdigit() and len(term) <= 18:
            return rows.filter(sequence=int(term))
        try:
            return rows.filter(decision_id=uuid.UUID(term))
        except ValueError:
            return rows.filter(project_id=term)

    def get_page_title(self, row: Any) -> str:
        """Return the heading of an entry's page."""
        return f"Ledger entry {row.sequence}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what the entry states, how it is chained, and the bytes that were hashed."""
        policy: Any = NOTHING
        if row.policy_version:
            url = reverse("admin:governance_policyversion_change", args=[str(row.policy_version)])
            policy = link(url, f"version {row.policy_version}")
        return [
            Panel("Entry", _statement(row, policy)),
            Panel(
                "Place in the chain",
                [
                    ("Sequence", row.sequence),
                    ("Previous hash", mono(bytes(row.prev_hash).hex())),
                    ("Entry hash", mono(bytes(row.entry_hash).hex())),
                    ("Policy SHA-256", mono(row.policy_document_sha256)),
                    ("Request SHA-256", mono(row.request_sha256)),
                    ("Response SHA-256", mono(row.response_sha256)),
                    ("Details SHA-256", mono(row.details_sha256)),
                ],
                note="The entry hash is SHA-256 over the previous hash and the canonical entry;"
                " manage.py verify_ledger recomputes every one of them.",
            ),
            Panel("Canonical entry", document=pretty_json(row.canonical)),
        ]

    @display(description="Sequence")
    def place(self, row: LedgerEntry) -> int:
        """Return the place in the chain."""
        return row.sequence

    @display(description="Time")
    def when(self, row: LedgerEntry) -> str:
        """Return when it happened."""
        return utc(row.at)

    @display(description="Event")
    def what(self, row: LedgerEntry) -> str:
        """Return what happened."""
        return words(row.event)

    @display(description="About")
    def about(self, row: LedgerEntry) -> SafeString | str:
        """Return the decision or the object that the entry is about."""
        if row.decision_id is not None:
            return _decision_link(row)
        return f"{words(row.subject_type)} {row.subject_id}" if row.subject_id else NOTHING

    @display(description="USD")
    def amount(self, row: LedgerEntry) -> str:
        """Return the amount of the event, else the change of cost."""
        if row.amount_usd is not None:
            return usd(row.amount_usd)
        return NOTHING if row.monthly_delta_usd is None else delta_usd(row.monthly_delta_usd)

    @display(description="Decision")
    def answer(self, row: LedgerEntry) -> SafeString | str:
        """Return the decision, as a badge."""
        return labels.decision_badge(row.decision)

    @display(description="Hash")
    def own_hash(self, row: LedgerEntry) -> SafeString | str:
        """Return the entry's hash, shortened."""
        return short(bytes(row.entry_hash).hex())


def _statement(row: LedgerEntry, policy: Any) -> list[tuple[str, Any]]:
    approval: Any = NOTHING
    if row.approval_request_id is not None:
        url = reverse("admin:governance_approval_change", args=[str(row.approval_request_id)])
        approval = link(url, f"{row.approval_status} ({row.approval_request_id})")
    return [
        ("Event", words(row.event)),
        ("At", utc(row.at)),
        ("Principal", mono(row.principal)),
        ("Decision", labels.decision_badge(row.decision)),
        ("Decision id", _decision_link(row) if row.decision_id else NOTHING),
        ("Subject", f"{words(row.subject_type)} {row.subject_id or ''}"),
        ("Project", row.project_id or NOTHING),
        ("Environment", row.environment or NOTHING),
        ("Mode", labels.mode_badge(row.mode)),
        ("Amount", f"{usd(row.amount_usd)} USD"),
        ("Monthly delta", f"{delta_usd(row.monthly_delta_usd)} USD" if row.decision else NOTHING),
        ("Cost", labels.cost_badge(row.cost_state)),
        ("Reasons", ", ".join(labels.reason_title(code) for code in row.reason_codes) or NOTHING),
        ("Approval", approval),
        ("Risk", f"{row.risk_class} ({row.risk_score})" if row.risk_class else NOTHING),
        ("Policy", policy),
    ]


def _decision_link(row: LedgerEntry) -> SafeString | str:
    url = reverse("admin:enforcement_decision_change", args=[str(row.decision_id)])
    return link(url, str(row.decision_id))

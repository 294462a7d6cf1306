"""Invariants of the record: decisions, ledger, approvals, keys and policies name one another."""

from __future__ import annotations

from typing import Final

from enforcement.integrity.domain import Invariant

_RESERVATION_DECISION: Final = """
SELECT r.decision_id AS id, c.project_id || ' ' || c.environment AS expected,
       d.project_id || ' ' || d.environment AS found
  FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
  LEFT JOIN enforcement_decision d ON d.id = r.decision_id AND d.tenant_id = %(tenant)s
 WHERE r.tenant_id = %(tenant)s
"""
# The outcome is stored as msgspec writes it; inside a string the quotes would be escaped.
_HOLDING_DECISION: Final = """
SELECT d.id, CASE WHEN d.outcome_json LIKE '%%"is_holding":true%%' THEN true
                  WHEN d.decision = 'REQUIRE_APPROVAL' THEN r.decision_id IS NOT NULL
                  ELSE false END AS expected,
       r.decision_id IS NOT NULL AS found
  FROM enforcement_decision d
  LEFT JOIN billing_reservation r ON r.decision_id = d.id AND r.tenant_id = %(tenant)s
 WHERE d.tenant_id = %(tenant)s
"""
_DECISION_ENTRY: Final = """
WITH entry AS (
    SELECT decision_id, count(*) AS entries FROM enforcement_ledger_entry
     WHERE tenant_id = %(tenant)s AND event = 'decision_made' GROUP BY decision_id
)
SELECT d.id, 1 AS expected, coalesce(e.entries, 0) AS found
  FROM enforcement_decision d LEFT JOIN entry e ON e.decision_id = d.id
 WHERE d.tenant_id = %(tenant)s
"""
_DECISION_AS_MADE: Final = """
SELECT d.id, e.decision || ' ' || coalesce(e.monthly_delta_usd::text, '-') || ' '
             || coalesce(e.request_sha256, '-') || ' ' || coalesce(e.response_sha256, '-') || ' '
             || d.outcome_sha256 AS expected,
       d.decision || ' ' || coalesce(d.monthly_delta_usd::text, '-') || ' '
             || d.request_fingerprint || ' '
             || encode(sha256(convert_to(d.response_json, 'UTF8')), 'hex') || ' '
             || encode(sha256(convert_to(d.outcome_json, 'UTF8')), 'hex') AS found
  FROM enforcement_decision d
  JOIN enforcement_ledger_entry e ON e.decision_id = d.id AND e.tenant_id = %(tenant)s
       AND e.event = 'decision_made'
 WHERE d.tenant_id = %(tenant)s
"""
_ENTRY_DECISION: Final = """
SELECT e.sequence AS id, e.decision_id AS expected, d.id AS found
  FROM enforcement_ledger_entry e
  LEFT JOIN enforcement_decision d ON d.id = e.decision_id AND d.tenant_id = %(tenant)s
 WHERE e.tenant_id = %(tenant)s AND e.decision_id IS NOT NULL
"""
_RESERVED_ENTRY: Final = """
WITH entry AS (
    SELECT decision_id, sum(amount_usd) AS usd FROM enforcement_ledger_entry
     WHERE tenant_id = %(tenant)s AND event IN ('reserved', 'overrun_reserved')
     GROUP BY decision_id
), held AS (
    SELECT r.decision_id, r.own_usd AS usd
      FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
     WHERE r.tenant_id = %(tenant)s AND NOT c.is_shadow
)
SELECT coalesce(h.decision_id, e.decision_id) AS id, e.usd AS expected, h.usd AS found
  FROM held h FULL JOIN entry e ON e.decision_id = h.decision_id
"""
_CLOSED_ENTRY: Final = """
WITH entry AS (
    SELECT decision_id, string_agg(event, ' ' ORDER BY sequence) AS events
      FROM enforcement_ledger_entry
     WHERE tenant_id = %(tenant)s AND event IN ('reconciled', 'released') GROUP BY decision_id
), closed AS (
    SELECT decision_id, CASE state WHEN 'settled' THEN 'reconciled'
                                   WHEN 'released' THEN 'released' END AS event
      FROM billing_reservation WHERE tenant_id = %(tenant)s
)
SELECT coalesce(c.decision_id, e.decision_id) AS id, c.event AS expected, e.events AS found
  FROM closed c FULL JOIN entry e ON e.decision_id = c.decision_id
"""
_CONFIRMED_ENTRY: Final = """
WITH entry AS (
    SELECT DISTINCT decision_id FROM enforcement_ledger_entry
     WHERE tenant_id = %(tenant)s AND event = 'confirmed'
)
SELECT c.family_id AS id, bool_or(c.confirmed_at IS NOT NULL) AS expected,
       bool_or(e.decision_id IS NOT NULL) AS found
  FROM billing_charge c LEFT JOIN billing_reservation r ON r.charge_id = c.id
  LEFT JOIN entry e ON e.decision_id = r.decision_id
 WHERE c.tenant_id = %(tenant)s GROUP BY c.family_id
"""
_LEDGER_GAPLESS: Final = """
WITH entry AS (SELECT sequence FROM enforcement_ledger_entry WHERE tenant_id = %(tenant)s)
SELECT sequence::text AS id, coalesce(lag(sequence) OVER (ORDER BY sequence), 0) + 1 AS expected,
       sequence AS found FROM entry
UNION ALL
SELECT 'head', coalesce(e.last, 0), h.sequence
  FROM (SELECT max(sequence) AS last FROM entry) e
  LEFT JOIN enforcement_ledger_head h ON h.tenant_id = %(tenant)s
 WHERE e.last IS NOT NULL OR h.tenant_id IS NOT NULL
"""
_APPROVAL_DECISION: Final = """
SELECT a.id, 'REQUIRE_APPROVAL ' || a.project_id || ' ' || a.environment AS expected,
       d.decision || ' ' || d.project_id || ' ' || d.environment AS found
  FROM governance_approval a
  LEFT JOIN enforcement_decision d ON d.id = a.decision_id AND d.tenant_id = %(tenant)s
 WHERE a.tenant_id = %(tenant)s
"""
_DECISION_APPROVAL: Final = """
SELECT d.id, CASE WHEN d.decision = 'REQUIRE_APPROVAL' THEN NOT d.is_fail_safe
                  -- One that goes ahead names the approval that it spent.
                  ELSE coalesce(a.status = 'consumed', false) AND d.decision <> 'DENY'
                  END AS expected,
       a.id IS NOT NULL AS found
  FROM enforcement_decision d
  LEFT JOIN governance_approval a ON a.id = d.approval_request_id AND a.tenant_id = %(tenant)s
 WHERE d.tenant_id = %(tenant)s
"""
_PENDING_APPROVAL: Final = """
SELECT a.id, 'not settled' AS expected,
       CASE r.state WHEN 'settled' THEN 'settled' ELSE 'not settled' END AS found
  FROM governance_approval a
  LEFT JOIN billing_reservation r ON r.decision_id = a.decision_id AND r.tenant_id = %(tenant)s
 WHERE a.tenant_id = %(tenant)s AND a.status = 'pending'
"""
_KEY_DECISION: Final = """
SELECT k.source || ' ' || k.stored_key AS id, k.request_fingerprint AS expected,
       d.request_fingerprint AS found
  FROM enforcement_idempotency_key k
  LEFT JOIN enforcement_decision d ON d.id = k.decision_id AND d.tenant_id = %(tenant)s
 WHERE k.tenant_id = %(tenant)s
"""
_POLICY_GAPLESS: Final = """
SELECT number::text AS id, coalesce(lag(number) OVER (ORDER BY number), 0) + 1 AS expected,
       number AS found
  FROM governance_policy_version WHERE tenant_id = %(tenant)s
"""
_POLICY_TEXT: Final = """
SELECT number AS id, sha256 AS expected,
       encode(sha256(convert_to(canonical_json, 'UTF8')), 'hex') AS found
  FROM governance_policy_version WHERE tenant_id = %(tenant)s
"""
_DECISION_POLICY: Final = """
SELECT d.id, d.policy_version || ' ' || d.policy_document_sha256 AS expected,
       v.number || ' ' || v.sha256 AS found
  FROM enforcement_decision d
  LEFT JOIN governance_policy_version v ON v.number = d.policy_version
       AND v.tenant_id = %(tenant)s
 WHERE d.tenant_id = %(tenant)s AND d.policy_version > 0
"""

INVARIANTS: Final = (
    Invariant(
        "reservation_has_decision",
        "Every reservation belongs to a decision, of the same project and environment.",
        _RESERVATION_DECISION,
    ),
    Invariant(
        "holding_decision_has_reservation",
        "A decision has a reservation when it holds something, and only then or after a review.",
        _HOLDING_DECISION,
    ),
    Invariant(
        "decision_has_ledger_entry",
        "The ledger says once of every decision that it was made.",
        _DECISION_ENTRY,
    ),
    Invariant(
        "decision_is_what_ledger_says",
        "A decision's answer, amount, request, response and outcome are those that were recorded.",
        _DECISION_AS_MADE,
    ),
    Invariant(
        "ledger_entry_has_decision",
        "Every decision that the ledger names exists.",
        _ENTRY_DECISION,
    ),
    Invariant(
        "reservation_is_on_ledger",
        "What a reservation holds of its own is on the ledger, and what the ledger says is held.",
        _RESERVED_ENTRY,
    ),
    Invariant(
        "closed_reservation_is_on_ledger",
        "Every reservation settled or released is on the ledger once as such, and no other.",
        _CLOSED_ENTRY,
    ),
    Invariant(
        "confirmed_family_is_on_ledger",
        "A family is confirmed when and only when the ledger says so.",
        _CONFIRMED_ENTRY,
    ),
    Invariant(
        "ledger_is_gapless",
        "The ledger's sequence begins at 1, has no gap and ends where its head says.",
        _LEDGER_GAPLESS,
    ),
    Invariant(
        "approval_has_decision",
        "An approval's decision exists, asks for approval and is of the same project.",
        _APPROVAL_DECISION,
    ),
    Invariant(
        "decision_has_its_approval",
        "A decision names an existing approval when and only when it waits for one or spent it.",
        _DECISION_APPROVAL,
    ),
    Invariant(
        "pending_approval_is_not_settled",
        "What a pending approval holds is not settled.",
        _PENDING_APPROVAL,
    ),
    Invariant(
        "idempotency_key_has_decision",
        "An idempotency key's decision exists and answered the key's request.",
        _KEY_DECISION,
    ),
    Invariant(
        "policy_versions_are_gapless",
        "Policy versions begin at 1 and have no gap.",
        _POLICY_GAPLESS,
    ),
    Invariant(
        "policy_is_what_was_published",
        "A policy version's text is the one that its digest was taken of.",
        _POLICY_TEXT,
    ),
    Invariant(
        "decision_names_its_policy",
        "The policy version that a decision names exists and has the same digest.",
        _DECISION_POLICY,
    ),
)

"""The queue's part of the database schema: a page of it from one function, planned once a session.

A column that one of these models gains is one more place in its rows: the migration that adds it
replaces the function too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.db.migrations import RunSQL

from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from enforcement.ledger.domain import DECISION_MADE
from governance.approvals.models import APPROVES, PENDING, Approval, Review
from governance.identity.domain import APPROVE_NONPROD, APPROVE_PROD
from governance.identity.hands import ACTIONS_BY_KIND, OBJECT_TYPES
from governance.policies.environments import NONPROD
from valdrix.kernel.rows import ONE_PLAN, RowsOf

APPROVALS: Final = RowsOf(
    Approval,
    without=(
        *("tenant_id", "change_is_computed", "routing_trace", "ttl_seconds", "reminded_at"),
        *("held_decision_id", "consumed_by_decision_id", "consumed_run_id"),
    ),
)
REVIEWS: Final = RowsOf(Review, only=("person_id", "groups"))
DECISIONS: Final = RowsOf(Decision, only=("id", "resource_reference", "reason_codes", "cost_state"))
"""What a queue shows of the decision behind an approval; anything else is not to be had there."""

_SHOWING: Final = tuple(one for actions in ACTIONS_BY_KIND.values() for one in actions)
_IS_SEPARATE: Final = (
    "(a.separate_requester OR greatest(a.required, cardinality(a.reviewer_groups_all)) > 1)"
)


def _texts(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


CREATE: Final = f"""
CREATE OR REPLACE FUNCTION enforcement_approval_queue
    (tenant uuid, person bigint, moment timestamptz, own_role text, nonprod boolean, prod boolean,
     without_rule boolean, projects text[], after uuid, most integer) RETURNS json
LANGUAGE plpgsql STABLE {ONE_PLAN} AS $$
DECLARE
    held json := (SELECT coalesce(json_agg(json_build_array(h.is_group, h.name)), '[]') FROM (
        SELECT false AS is_group, p.permission AS name FROM governance_approval_permission p
         WHERE p.tenant_id = tenant AND p.user_id = person
        UNION ALL
        SELECT true, g.name FROM governance_reviewer_group_member m
          JOIN governance_reviewer_group g ON g.id = m.group_id AND g.tenant_id = m.tenant_id
         WHERE m.tenant_id = tenant AND m.user_id = person) AS h);
    ids uuid[];
    decision_ids uuid[];
    asked_ids uuid[];
    asked json[];
    decided_ids uuid[];
    decided json[];
    burnt_ids uuid[];
    burnt numeric[];
BEGIN
    nonprod := nonprod OR held::jsonb @> '[[false, "{APPROVE_NONPROD}"]]';
    prod := prod OR held::jsonb @> '[[false, "{APPROVE_PROD}"]]';
    SELECT array_agg(p.id), array_agg(p.decision_id) INTO ids, decision_ids FROM (
        SELECT q.id, q.decision_id FROM governance_approval q
         WHERE q.tenant_id = tenant AND q.status = '{PENDING}' AND q.expires_at > moment
           AND q.reviewer_roles @> ARRAY[own_role]::varchar[]
           AND CASE WHEN q.environment = '{NONPROD}' THEN nonprod ELSE prod END
           AND (without_rule OR q.routing_rule_id IS NOT NULL)
           AND coalesce(q.project_id = ANY (projects), true)
           AND q.id > after ORDER BY q.id LIMIT most) AS p;
    -- One look at a table for all rows: one for each row is dear where the planner knows no better
    -- index than the tenant's.
    SELECT array_agg(p.id), array_agg(p.people) INTO asked_ids, asked FROM (
        SELECT d.approval_request_id AS id, json_agg(DISTINCT d.person_id) AS people
          FROM enforcement_decision d
         WHERE d.tenant_id = tenant AND d.approval_request_id = ANY (ids)
           AND d.decision = '{REQUIRE_APPROVAL}' GROUP BY d.approval_request_id) AS p;
    SELECT array_agg(o.id), array_agg({DECISIONS.sql("o")}) INTO decided_ids, decided
      FROM enforcement_decision o WHERE o.tenant_id = tenant AND o.id = ANY (decision_ids);
    SELECT array_agg(l.decision_id), array_agg(l.reserved_emergency_credit_usd) INTO burnt_ids, burnt
      FROM enforcement_ledger_entry l
     WHERE l.tenant_id = tenant AND l.decision_id = ANY (decision_ids)
       AND l.event = '{DECISION_MADE}';
    RETURN json_build_object('held', held, 'rows', (
        SELECT coalesce(json_agg(json_build_array(
            {APPROVALS.sql("a")},
            asked[array_position(asked_ids, a.id)],
            CASE WHEN {_IS_SEPARATE} THEN (SELECT json_agg(json_build_array(u.actor, u.first_at, u.last_at))
               FROM (SELECT d.actor, min(d.created_at) AS first_at, max(d.created_at) AS last_at
                       FROM enforcement_decision d
                      WHERE d.tenant_id = tenant AND d.approval_request_id = a.id
                        AND d.decision = '{REQUIRE_APPROVAL}' GROUP BY d.actor) AS u
              WHERE EXISTS (SELECT 1 FROM governance_audit_entry e
                             WHERE e.tenant_id = tenant AND e.object_type IN ({_texts(OBJECT_TYPES)})
                               AND e.object_id = split_part(u.actor, ':', 2)
                               AND e.action IN ({_texts(_SHOWING)})
                               AND e.actor NOT LIKE 'system:%')) END,
            (SELECT json_agg({REVIEWS.sql("v")} ORDER BY v.id) FROM governance_review v
              WHERE v.tenant_id = tenant AND v.approval_id = a.id AND v.verdict = '{APPROVES}'
                AND v.round = a.round
                AND v.monthly_delta_usd IS NOT DISTINCT FROM a.monthly_delta_usd),
            decided[array_position(decided_ids, a.decision_id)],
            burnt[array_position(burnt_ids, a.decision_id)]
        ) ORDER BY a.id), '[]') FROM governance_approval a
         WHERE a.tenant_id = tenant AND a.id = ANY (ids)));
END $$;
"""


def create_queue_function() -> RunSQL:
    """Return the operation that creates it; it runs with the caller's rights."""
    return RunSQL(CREATE, "DROP FUNCTION enforcement_approval_queue;")


def renew_queue_function() -> RunSQL:
    """Return the operation that puts it in the place of one that says less."""
    return RunSQL(CREATE, RunSQL.noop)

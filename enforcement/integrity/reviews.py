"""Invariants of approvals, the votes that gave them, and the tokens that spend them (SPEC 6)."""

from __future__ import annotations

from typing import Final

from enforcement.integrity.domain import Invariant

# Distinct people who said yes in the present round to the present amount; where requesters are no
# reviewers, none of them. Each demanded group needs a person of its own: any few of the groups
# together have at least as many people (Hall's condition).
_GIVEN_BY_ENOUGH: Final = """
WITH given AS (
    SELECT id, decision_id, round, monthly_delta_usd, requester_person_id, reviewer_groups_all,
           greatest(required, cardinality(reviewer_groups_all)) AS needed,
           separate_requester OR greatest(required, cardinality(reviewer_groups_all)) > 1
               AS is_separate
      FROM governance_approval
     WHERE tenant_id = %(tenant)s AND status IN ('approved', 'consumed')
), asking AS (
    SELECT approval_request_id AS id, person_id FROM enforcement_decision
     WHERE tenant_id = %(tenant)s AND decision = 'REQUIRE_APPROVAL'
       AND approval_request_id IS NOT NULL
    UNION SELECT id, requester_person_id FROM given
), vote AS (
    SELECT DISTINCT g.id, v.person_id, v.groups
      FROM given g JOIN governance_review v ON v.approval_id = g.id AND v.round = g.round
           AND v.verdict = 'approve'
           AND v.monthly_delta_usd IS NOT DISTINCT FROM g.monthly_delta_usd
      LEFT JOIN asking a ON a.id = g.id AND a.person_id = v.person_id
     WHERE v.tenant_id = %(tenant)s AND (a.id IS NULL OR NOT g.is_separate)
), counted AS (SELECT id, count(DISTINCT person_id) AS people FROM vote GROUP BY id
), some_groups AS (
    SELECT g.id, s.names FROM given g,
           LATERAL (SELECT array_agg(one.name) AS names
                      FROM generate_series(1, (1 << cardinality(g.reviewer_groups_all)) - 1)
                               AS bits (number),
                           unnest(g.reviewer_groups_all) WITH ORDINALITY AS one (name, place)
                     WHERE bits.number & (1 << (place - 1)::int) > 0
                     GROUP BY bits.number) AS s
     WHERE cardinality(g.reviewer_groups_all) > 0
), short AS (
    SELECT s.id FROM some_groups s
      LEFT JOIN vote v ON v.id = s.id AND v.groups && s.names
     GROUP BY s.id, s.names HAVING count(DISTINCT v.person_id) < cardinality(s.names)
)
SELECT g.id, 'enough' AS expected,
       CASE WHEN coalesce(c.people, 0) < g.needed
            THEN coalesce(c.people, 0) || ' of ' || g.needed || ' people'
            WHEN EXISTS (SELECT 1 FROM short s WHERE s.id = g.id) THEN 'not of each group'
            ELSE 'enough' END AS found
  FROM given g LEFT JOIN counted c ON c.id = g.id
"""
_VOTES_ON_LEDGER: Final = """
WITH vote AS (
    SELECT approval_id AS id, count(*) FILTER (WHERE verdict = 'approve') AS yes,
           count(*) FILTER (WHERE verdict = 'deny') AS no
      FROM governance_review WHERE tenant_id = %(tenant)s GROUP BY approval_id
), entry AS (
    SELECT approval_request_id AS id,
           count(*) FILTER (WHERE event IN ('approval_given', 'approval_approved')) AS yes,
           count(*) FILTER (WHERE event = 'approval_denied') AS no
      FROM enforcement_ledger_entry
     WHERE tenant_id = %(tenant)s
       AND event IN ('approval_given', 'approval_approved', 'approval_denied')
     GROUP BY approval_request_id
)
SELECT coalesce(a.id, e.id, v.id) AS id,
       coalesce(v.yes, 0) || ' yes ' || coalesce(v.no, 0) || ' no' AS expected,
       coalesce(e.yes, 0) || ' yes ' || coalesce(e.no, 0) || ' no' AS found
  FROM (SELECT id FROM governance_approval WHERE tenant_id = %(tenant)s) a
  FULL JOIN vote v ON v.id = a.id FULL JOIN entry e ON e.id = a.id
"""
# One letter a transition: each round but the last ended and was asked for again.
_ON_LEDGER: Final = """
WITH entry AS (
    SELECT approval_request_id AS id,
           string_agg(CASE event WHEN 'approval_requested' THEN 'r' WHEN 'approval_approved' THEN 'a'
                                 WHEN 'approval_denied' THEN 'd' WHEN 'approval_expired' THEN 'e'
                                 WHEN 'approval_withdrawn' THEN 'w' ELSE 'c' END,
                      '' ORDER BY sequence) AS way
      FROM enforcement_ledger_entry
     WHERE tenant_id = %(tenant)s AND approval_request_id IS NOT NULL
       AND event IN ('approval_requested', 'approval_approved', 'approval_denied',
                     'approval_expired', 'approval_withdrawn', 'approval_consumed')
     GROUP BY approval_request_id
), expected AS (
    SELECT id, '^(ra?[ew]){' || round - 1 || '}r'
               || CASE status WHEN 'pending' THEN '' WHEN 'approved' THEN 'a' WHEN 'denied' THEN 'd'
                              WHEN 'expired' THEN 'a?e' WHEN 'withdrawn' THEN 'a?w'
                              ELSE 'ac' END || '$' AS way
      FROM governance_approval WHERE tenant_id = %(tenant)s
)
SELECT coalesce(x.id, e.id) AS id, x.way AS expected,
       CASE WHEN e.way ~ x.way THEN x.way ELSE e.way END AS found
  FROM expected x FULL JOIN entry e ON e.id = x.id
"""
# What goes back goes in the transactions after the verdict, and what others lean on goes with them.
_ENDED_HOLDS_NOTHING: Final = """
WITH refused AS (
    SELECT r.decision_id, r.charge_id, r.parent_charge_id, r.own_usd, r.taken_usd, c.family_id,
           a.closed_at
      FROM billing_reservation r
      JOIN billing_charge c ON c.id = r.charge_id
      JOIN enforcement_decision d ON d.id = r.decision_id AND d.decision = 'REQUIRE_APPROVAL'
      JOIN governance_approval a ON a.id = d.approval_request_id
     WHERE r.tenant_id = %(tenant)s AND r.state = 'active'
       AND a.status IN ('denied', 'expired', 'withdrawn')
), own AS (SELECT charge_id AS id, sum(own_usd) AS usd FROM refused GROUP BY charge_id
), taken AS (
    SELECT parent_charge_id AS id, sum(taken_usd) AS usd FROM refused
     WHERE parent_charge_id IS NOT NULL GROUP BY parent_charge_id
), leaned_on AS (
    SELECT DISTINCT c.family_id FROM billing_charge c JOIN own o ON o.id = c.id
      LEFT JOIN taken t ON t.id = c.id
     WHERE c.taken_usd - coalesce(t.usd, 0) > c.own_usd - o.usd
)
SELECT a.id, 'nothing' AS expected,
       CASE WHEN bool_or(f.closed_at < now() - interval '1 hour' AND l.family_id IS NULL)
            THEN 'a reservation' ELSE 'nothing' END AS found
  FROM governance_approval a
  LEFT JOIN enforcement_decision d ON d.approval_request_id = a.id AND d.tenant_id = %(tenant)s
  LEFT JOIN refused f ON f.decision_id = d.id
  LEFT JOIN leaned_on l ON l.family_id = f.family_id
 WHERE a.tenant_id = %(tenant)s AND a.status IN ('denied', 'expired', 'withdrawn') GROUP BY a.id
"""
# A revoked token may be of an earlier round, in which the amounts were others.
_CLAIMS: Final = """
WITH token AS (
    SELECT t.*, t.claims_json::jsonb AS claims FROM governance_approval_token t
     WHERE t.tenant_id = %(tenant)s
)
SELECT t.jti AS id,
       concat_ws(' ', t.jti, a.tenant_id, a.id, a.decision_id, a.project_id, a.environment,
                 a.source, d.request_fingerprint, a.change_fingerprint, d.resource_reference,
                 CASE t.status WHEN 'revoked' THEN '' ELSE a.max_monthly_delta_usd || ' '
                      || coalesce(a.max_hourly_delta_usd::text, '-') END) AS expected,
       concat_ws(' ', claims->>'jti', claims->>'tenant_id', claims->>'approval_id',
                 claims->>'decision_id', claims->>'project_id', claims->>'environment',
                 claims->>'source', claims->>'request_fingerprint', claims->>'change_fingerprint',
                 claims->>'resource_reference',
                 CASE t.status WHEN 'revoked' THEN '' ELSE (claims->>'max_monthly_delta_usd') || ' '
                      || coalesce(claims->>'max_hourly_delta_usd', '-') END) AS found
  FROM token t
  LEFT JOIN governance_approval a ON a.id = t.approval_id AND a.tenant_id = %(tenant)s
  LEFT JOIN enforcement_decision d ON d.id = a.decision_id AND d.tenant_id = %(tenant)s
"""
_LIVE_AND_SPENT: Final = """
SELECT a.id, CASE a.status WHEN 'approved' THEN least(count(*) FILTER (WHERE t.status = 'live'), 1)
                           ELSE 0 END || ' live '
             || CASE a.status WHEN 'consumed' THEN least(count(*) FILTER (WHERE t.status = 'consumed'), 1)
                              ELSE 0 END || ' spent' AS expected,
       count(*) FILTER (WHERE t.status = 'live') || ' live '
             || count(*) FILTER (WHERE t.status = 'consumed') || ' spent' AS found
  FROM governance_approval a
  LEFT JOIN governance_approval_token t ON t.approval_id = a.id AND t.tenant_id = %(tenant)s
 WHERE a.tenant_id = %(tenant)s GROUP BY a.id, a.status
"""
_ISSUED_AND_SPENT: Final = """
WITH entry AS (
    SELECT subject_id AS id, string_agg(event || ' ' || approval_request_id, ', ' ORDER BY sequence)
               AS way
      FROM enforcement_ledger_entry
     WHERE tenant_id = %(tenant)s AND subject_type = 'approval_token' GROUP BY subject_id
), token AS (
    SELECT jti::text AS id, 'token_issued ' || approval_id
           || CASE status WHEN 'live' THEN '' ELSE ', token_' || status || ' ' || approval_id END
               AS way
      FROM governance_approval_token WHERE tenant_id = %(tenant)s
)
SELECT coalesce(t.id, e.id) AS id, t.way AS expected, e.way AS found
  FROM token t FULL JOIN entry e ON e.id = t.id
"""

INVARIANTS: Final = (
    Invariant(
        "given_approval_has_its_votes",
        "An approval that was given has as many people's yes as it demands, to its amount and in its"
        " round, one of each demanded group, and no requester's where those are separate.",
        _GIVEN_BY_ENOUGH,
    ),
    Invariant(
        "votes_are_on_ledger",
        "The ledger says as often yes and no about an approval as people did.",
        _VOTES_ON_LEDGER,
    ),
    Invariant(
        "approval_is_on_ledger",
        "Every approval is on the ledger with each of its transitions, in their order, and no other.",
        _ON_LEDGER,
    ),
    Invariant(
        "ended_approval_holds_nothing",
        "An hour after an approval was denied, expired or withdrawn nothing of it is held that no"
        " other decision leans on.",
        _ENDED_HOLDS_NOTHING,
    ),
    Invariant(
        "token_says_what_was_approved",
        "A token's stored claims are its approval's bindings; unless it is revoked, its ceiling too.",
        _CLAIMS,
    ),
    Invariant(
        "token_fits_its_approval",
        "An approval has one live token at most, while it is given, and one spent one at most, once"
        " it is spent.",
        _LIVE_AND_SPENT,
    ),
    Invariant(
        "token_is_on_ledger",
        "The ledger says once of every token that it was issued, and once that it was spent or"
        " revoked.",
        _ISSUED_AND_SPENT,
    ),
)

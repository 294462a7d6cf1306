"""The gate's part of the database schema: what it locks and reads, planned once a session."""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from enforcement.gate.retrying import RETRIED
from enforcement.gate.spending import GIVEN

# Amounts travel as text: a JSON number would become a float on the way.
SNAPSHOT: Final = """
CREATE FUNCTION enforcement_gate_snapshot(p_tenant uuid, p_project text, p_accounts uuid[],
    p_month date, OUT accounts json, OUT costs text, OUT tier text, OUT policy_version integer)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT (SELECT json_agg(json_build_array(a.kind, a.id, a.project_id, a.environment, a.team,
                       a.basis, a.monthly_limit_usd::text, a.pending_usd::text,
                       coalesce(m.posted_usd, 0)::text, coalesce(m.overrun_usd, 0)::text,
                       (a.shadow_pending_usd + coalesce(m.shadow_posted_usd, 0))::text,
                       a.pool, a.priority, a.expires_at, a.remaining_usd::text,
                       CASE WHEN a.basis = 'actuals' THEN billing_pending_in_costs(a.id, p_project)
                            ELSE 0 END::text) ORDER BY a.id)
              FROM billing_account a
              LEFT JOIN billing_account_month m ON m.account_id = a.id AND m.month = p_month
             WHERE a.id = ANY (p_accounts)),
           billing_cost_days(p_project, p_month),
           (SELECT s.tier FROM billing_subscription s WHERE s.tenant_id = p_tenant),
           (SELECT max(v.number) FROM governance_policy_version v WHERE v.tenant_id = p_tenant)
      INTO accounts, costs, tier, policy_version;
END $$;
"""


# What is decided step by step: a retry whose answer is kept, and what an approval lets go ahead.
LOOK_BACK: Final = f"""
CREATE OR REPLACE FUNCTION enforcement_looks_back(p_tenant uuid, p_change jsonb, p_now timestamptz)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (p_change ? 'retry' AND EXISTS ({RETRIED}))
        OR (p_change ? 'spends' AND EXISTS ({GIVEN}));
END $$;
"""

# Everything up to the decision in one call. Each statement in it sees what was committed before it
# began, so that what is read last is read behind the locks.
BEGIN: Final = """
CREATE OR REPLACE FUNCTION enforcement_gate_begin(p jsonb) RETURNS json
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    tenant uuid := valdrix_current_tenant();
    moment timestamptz := p->>'now';
    locks bigint[] := p->>'locks';
    taken integer[];
    governing record;
    policy json;
    claim jsonb;
    change jsonb;
    charges json;
    scope jsonb;
    locked uuid[];
    accounts record;
    seen record;
    reads json[] := '{}';
    changed integer[];
BEGIN
    IF p ? 'keys' THEN
        -- Before anything is locked or said: whom the credentials were assumed to speak for.
        changed := governance_changed_keys(p->'keys');
        IF cardinality(changed) > 0 THEN
            RETURN json_build_array(NULL, NULL, NULL, NULL, to_json(changed));
        END IF;
    END IF;
    -- Functions of one row are assigned: a statement around them would cost as much as they do.
    governing := governance_read_policy(tenant, moment, p->>'known');
    -- The claims come sorted: whoever waits for another's key holds none that comes after it.
    IF jsonb_array_length(p->'claims') = 1 THEN
        claim := p->'claims'->0->1;
        INSERT INTO enforcement_idempotency_key (tenant_id, source, stored_key,
            request_fingerprint, sent_sha256, decision_id, claimed_at)
        VALUES (tenant, claim->>'source', claim->>'stored_key', claim->>'request_fingerprint',
            claim->>'sent_sha256', (claim->>'decision_id')::uuid,
            (claim->>'claimed_at')::timestamptz)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            taken := ARRAY[(p->'claims'->0->>0)::integer];
        END IF;
    ELSE
        WITH claim AS (
            SELECT (c->>0)::integer AS place, k.*
              FROM jsonb_array_elements(p->'claims') AS c,
                   jsonb_to_record(c->1) AS k (source text, stored_key text,
                       request_fingerprint text, sent_sha256 text, decision_id uuid,
                       claimed_at timestamptz)
        ), claimed AS (
            INSERT INTO enforcement_idempotency_key (tenant_id, source, stored_key,
                request_fingerprint, sent_sha256, decision_id, claimed_at)
            SELECT tenant, k.source, k.stored_key, k.request_fingerprint, k.sent_sha256,
                   k.decision_id, k.claimed_at
              FROM claim k
            ON CONFLICT DO NOTHING RETURNING decision_id
        )
        SELECT array_agg(k.place) INTO taken
          FROM claim k WHERE k.decision_id NOT IN (SELECT c.decision_id FROM claimed c);
    END IF;
    IF taken IS NOT NULL AND jsonb_array_length(p->'changes') = 1 THEN
        RAISE EXCEPTION 'the key is taken' USING ERRCODE = 'VX006';
    END IF;
    IF jsonb_array_length(p->'changes') = 1 THEN
        change := p->'changes'->0;
        SELECT json_agg(json_build_array(f.is_parent, f.id, f.family_id, f.held_usd::text,
                   f.own_usd::text, f.taken_usd::text, f.change_is_computed))
          INTO charges
          FROM billing_lock_charges(locks, tenant, (change->>'shadow')::boolean,
               (change->>'computed')::boolean, change->>'fingerprint', change->>'run',
               change->>'project', change->>'environment', change->>'action',
               change->>'reference', change->>'digest', (change->>'closes')::boolean,
               (p->>'parent')::uuid) f;
    ELSE
        -- Of many changes only the places of those that have a charge already.
        PERFORM pg_advisory_xact_lock(key) FROM unnest(locks) AS key;
        SELECT json_agg(DISTINCT place - 1) INTO charges
          FROM jsonb_array_elements(p->'changes') WITH ORDINALITY AS listed (c, place),
               LATERAL billing_find_charges(tenant, (c->>'shadow')::boolean,
                   (c->>'computed')::boolean, c->>'fingerprint', c->>'run', c->>'project',
                   c->>'environment', c->>'action', c->>'reference', c->>'digest',
                   (c->>'closes')::boolean, NULL) f;
    END IF;
    IF jsonb_array_length(p->'scopes') > 1 THEN
        SELECT array_agg(a.id) INTO locked FROM billing_lock_scopes(tenant, p->'scopes', moment) a;
    END IF;
    FOR place IN 0 .. jsonb_array_length(p->'scopes') - 1 LOOP
        scope := p->'scopes'->place;
        IF locked IS NULL THEN
            accounts := billing_lock_accounts(tenant, scope->>'project', scope->>'environment',
                                              scope->>'team', moment);
        ELSE
            SELECT array_agg(a.id) AS ids, json_agg(json_build_array(a.id, a.kind)) AS listed
              INTO accounts
              FROM billing_gate_accounts(tenant, scope->>'project', scope->>'environment',
                                         scope->>'team', moment, false) a
             WHERE a.id = ANY (locked);
        END IF;
        seen := enforcement_gate_snapshot(tenant, scope->>'project', accounts.ids,
                                          (p->>'month')::date);
        reads := reads || json_build_array(accounts.listed, json_build_array(
            seen.accounts, seen.costs, seen.tier, seen.policy_version));
    END LOOP;
    IF (p->>'looks_back')::boolean THEN
        SELECT taken || array_agg((listed.place - 1)::integer) INTO taken
          FROM jsonb_array_elements(p->'changes') WITH ORDINALITY AS listed (c, place)
         WHERE enforcement_looks_back(tenant, listed.c, moment);
        IF taken IS NOT NULL AND jsonb_array_length(p->'changes') = 1 THEN
            RAISE EXCEPTION 'there is an answer or an approval' USING ERRCODE = 'VX006';
        END IF;
    END IF;
    policy := json_build_array(governing.number, governing.sha256, governing.schema_version,
                               governing.canonical_json, governing.forced_modes);
    IF changed IS NULL THEN
        -- The caller is of an earlier version, and asked the database about the credential before.
        RETURN json_build_array(policy, charges, to_json(reads), to_json(coalesce(taken, '{}')));
    END IF;
    RETURN json_build_array(policy, charges, to_json(reads), to_json(coalesce(taken, '{}')),
                            to_json(changed));
END $$;
"""


def create_gate_functions() -> RunSQL:
    """Return the operation that creates them; they run with the caller's rights."""
    return RunSQL(SNAPSHOT, "DROP FUNCTION enforcement_gate_snapshot;")


def create_begin_function() -> RunSQL:
    """Return the operation that creates the call which begins a gate, with the caller's rights."""
    return RunSQL(
        LOOK_BACK + BEGIN,
        "DROP FUNCTION enforcement_gate_begin; DROP FUNCTION enforcement_looks_back;",
    )

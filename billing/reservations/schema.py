"""Reservations' part of the database schema: what a gate looks up, locks and holds in one call.

The functions run with the caller's rights, so that row-level security holds inside them as it does
outside; what they save is the way to the database, and planning the same statements each time.
"""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

_CHANGE: Final = """p_tenant uuid, p_shadow boolean, p_computed boolean, p_fingerprint text,
    p_run text, p_project text, p_environment text, p_action text, p_reference text,
    p_digest text, p_closes boolean, p_decision uuid"""
_CHANGE_NAMES: Final = """p_tenant, p_shadow, p_computed, p_fingerprint, p_run, p_project,
        p_environment, p_action, p_reference, p_digest, p_closes, p_decision"""
_CHARGES: Final = """TABLE (is_parent boolean, id uuid, family_id uuid, held_usd numeric,
    own_usd numeric, taken_usd numeric, change_is_computed boolean)"""

_OF_THE_RUN: Final = """billing_charge a
                 WHERE a.tenant_id = p_tenant AND a.state = 'active' AND a.is_shadow = p_shadow
                   AND a.run_id = p_run AND a.project_id = p_project
                   AND a.environment = p_environment AND a.action = p_action
                   AND a.resource_reference = p_reference
                   -- Within one run a stage without a digest asks about the change that has one.
                   AND (a.change_digest IS NULL OR p_digest IS NULL OR a.change_digest = p_digest)
                   -- What was applied is over; only the stage that says so still belongs to it.
                   AND (a.confirmed_at IS NULL OR p_closes)"""

CREATE: Final = f"""
CREATE OR REPLACE FUNCTION billing_find_charges({_CHANGE}) RETURNS {_CHARGES}
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF p_computed THEN
        RETURN QUERY
        SELECT false, c.id, c.family_id, c.held_usd, c.own_usd, c.taken_usd, c.change_is_computed
          FROM (SELECT a.* FROM billing_charge a
                 WHERE a.tenant_id = p_tenant AND a.state = 'active'
                   AND a.is_shadow = p_shadow AND a.change_is_computed
                   AND a.change_fingerprint = p_fingerprint AND a.confirmed_at IS NULL
                UNION ALL
                SELECT a.* FROM {_OF_THE_RUN}) c
         -- The run's own charge of this very change, then the run's own, then another run's.
         ORDER BY coalesce(c.run_id = p_run AND c.change_digest IS NOT DISTINCT FROM p_digest,
                           false) DESC, coalesce(c.run_id = p_run, false) DESC, c.id
         LIMIT 1;
    ELSIF p_run IS NOT NULL THEN
        RETURN QUERY
        SELECT false, a.id, a.family_id, a.held_usd, a.own_usd, a.taken_usd, a.change_is_computed
          FROM {_OF_THE_RUN}
         ORDER BY (a.change_digest IS NOT DISTINCT FROM p_digest) DESC, a.id LIMIT 1;
    END IF;
    IF p_decision IS NOT NULL THEN
        RETURN QUERY
        SELECT true, c.id, c.family_id, c.held_usd, c.own_usd, c.taken_usd, c.change_is_computed
          FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
         WHERE r.decision_id = p_decision AND r.tenant_id = p_tenant AND r.state = 'active'
           AND c.state = 'active' AND c.is_shadow = p_shadow
           AND c.project_id = p_project AND c.environment = p_environment;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION billing_lock_charges(p_locks bigint[], {_CHANGE}) RETURNS {_CHARGES}
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    wanted uuid[];
    found_charges uuid[];
    name_lock bigint;
BEGIN
    -- The numbers come sorted. A condition is evaluated without a statement around it.
    FOREACH name_lock IN ARRAY p_locks LOOP
        CONTINUE WHEN pg_advisory_xact_lock(name_lock) IS NULL;
    END LOOP;
    FOR attempt IN 1..3 LOOP
        SELECT array_agg(f.id) || array_agg(f.family_id) INTO wanted
          FROM billing_find_charges({_CHANGE_NAMES}) f;
        IF wanted IS NULL THEN
            RETURN;
        END IF;
        -- First charges of families before all others, as settlement locks them.
        PERFORM c.id FROM billing_charge c WHERE c.tenant_id = p_tenant AND c.id = ANY (wanted)
          ORDER BY (c.id <> c.family_id), c.id FOR UPDATE;
        -- Only now do they stand still: what was settled meanwhile is not found again.
        SELECT array_agg(f.id) INTO found_charges FROM billing_find_charges({_CHANGE_NAMES}) f;
        IF found_charges IS NULL OR found_charges <@ wanted THEN
            RETURN QUERY SELECT * FROM billing_find_charges({_CHANGE_NAMES});
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'other charges take the place of those locked' USING ERRCODE = 'VX005';
END $$;
"""
HOLD: Final = """
CREATE OR REPLACE FUNCTION billing_hold_all(p jsonb) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    o record;
    wanted integer;
    charged integer;
    joins boolean;
BEGIN
    -- One statement, however many orders: each statement has to make the checks of its tables ready,
    -- which takes longer than all the rest of it.
    WITH h AS MATERIALIZED (
        SELECT r.* FROM jsonb_to_recordset(p) AS r (opens boolean, charge uuid, family uuid,
            parent uuid, tenant uuid, decision uuid, shadow boolean, project text,
            environment text, action text, reference text, fingerprint text, digest text,
            computed boolean, run text, own numeric, taken numeric, month date, at timestamptz,
            due timestamptz, accounts uuid[], kinds text[], amounts numeric[], pending numeric[],
            shadows numeric[], credits numeric[])
    ), opened AS (
        INSERT INTO billing_charge (id, tenant_id, family_id, is_shadow, state, project_id,
            environment, action, resource_reference, change_fingerprint, change_digest,
            change_is_computed, run_id, held_usd, own_usd, taken_usd, family_held_usd, opened_at)
        SELECT h.charge, h.tenant, h.family, h.shadow, 'active', h.project, h.environment,
            h.action, h.reference, h.fingerprint, h.digest, h.computed, h.run, h.own + h.taken,
            h.own, 0, CASE WHEN h.parent IS NULL THEN h.own ELSE 0 END, h.at
          FROM h WHERE h.opens
    ), reserved AS (
        INSERT INTO billing_reservation (decision_id, tenant_id, charge_id, parent_charge_id,
            state, own_usd, taken_usd, month, reserved_at, due_at)
        SELECT h.decision, h.tenant, h.charge, h.parent, 'active', h.own, h.taken, h.month, h.at,
            h.due FROM h
    ), lined AS (
        INSERT INTO billing_reservation_line (reservation_id, tenant_id, account_id, kind,
            is_shadow, state, position, amount_usd, posted_usd, month)
        SELECT h.decision, h.tenant, l.account, l.kind, h.shadow, 'pending', l.place, l.amount, 0,
               h.month
          FROM h, unnest(h.accounts, h.kinds, h.amounts) WITH ORDINALITY
               AS l (account, kind, amount, place)
    ), moved AS MATERIALIZED (
        SELECT l.account, sum(l.pending) AS pending, sum(l.shadow) AS shadow,
               sum(l.credit) AS credit
          FROM h, unnest(h.accounts, h.amounts, h.pending, h.shadows, h.credits)
               AS l (account, amount, pending, shadow, credit)
         WHERE l.amount > 0 GROUP BY l.account
    ), updated AS (
        UPDATE billing_account a
           SET pending_usd = a.pending_usd + m.pending,
               shadow_pending_usd = a.shadow_pending_usd + m.shadow,
               remaining_usd = a.remaining_usd - m.credit,
               reserved_usd = a.reserved_usd + m.credit
          FROM moved m WHERE a.id = m.account RETURNING a.id
    )
    SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM updated),
           bool_or(NOT h.opens OR h.parent IS NOT NULL OR h.taken > 0)
      INTO wanted, charged, joins FROM h;
    IF charged <> wanted THEN
        RAISE EXCEPTION '% of % accounts were charged', charged, wanted USING ERRCODE = 'VX007';
    END IF;
    IF NOT joins THEN
        RETURN;
    END IF;
    -- What joins a charge, or takes a part of a parent's, one order after the other.
    FOR o IN
        SELECT r.* FROM jsonb_to_recordset(p) AS r (opens boolean, charge uuid, family uuid,
            parent uuid, fingerprint text, digest text, adopts boolean, own numeric, taken numeric)
         WHERE NOT r.opens OR r.parent IS NOT NULL OR r.taken > 0
    LOOP
        IF NOT o.opens THEN
            UPDATE billing_charge c
               SET held_usd = c.held_usd + o.own + o.taken, own_usd = c.own_usd + o.own,
                   -- A stage with a computed digest names the change for later runs.
                   change_fingerprint = CASE WHEN o.adopts THEN o.fingerprint
                                             ELSE c.change_fingerprint END,
                   change_digest = CASE WHEN o.adopts THEN o.digest ELSE c.change_digest END,
                   change_is_computed = c.change_is_computed OR o.adopts
             WHERE c.id = o.charge;
        END IF;
        IF o.taken > 0 THEN
            UPDATE billing_charge c SET taken_usd = c.taken_usd + o.taken WHERE c.id = o.parent;
        END IF;
        IF o.own > 0 THEN
            UPDATE billing_charge c SET family_held_usd = c.family_held_usd + o.own
             WHERE c.id = o.family;
        END IF;
    END LOOP;
END $$;
"""
DROP: Final = """
DROP FUNCTION billing_hold_all;
DROP FUNCTION billing_lock_charges;
DROP FUNCTION billing_find_charges;
"""


def create_reservation_functions() -> RunSQL:
    """Return the operation that creates them."""
    return RunSQL(CREATE + HOLD, DROP)


def replace_reservation_functions() -> RunSQL:
    """Return the operation that brings all of them up to date."""
    return RunSQL(CREATE + HOLD, RunSQL.noop)


def replace_hold_function() -> RunSQL:
    """Return the operation that brings the function up to date in a database that has it."""
    return RunSQL(HOLD, RunSQL.noop)

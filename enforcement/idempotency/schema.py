"""Claims' part of the database schema: a claim that ends what was sent together with it."""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

CREATE: Final = """
CREATE FUNCTION enforcement_claim_key(p_tenant uuid, p_source text, p_key text,
    p_fingerprint text, p_sent text, p_decision uuid, p_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO enforcement_idempotency_key (tenant_id, source, stored_key, request_fingerprint,
        sent_sha256, decision_id, claimed_at)
    VALUES (p_tenant, p_source, p_key, p_fingerprint, p_sent, p_decision, p_at)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the key is taken' USING ERRCODE = 'VX006';
    END IF;
END $$;
"""


def create_claim_function() -> RunSQL:
    """Return the operation that creates it; it runs with the caller's rights."""
    return RunSQL(CREATE, "DROP FUNCTION enforcement_claim_key;")

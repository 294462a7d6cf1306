"""Idempotency: one decision for one key, for ever (SPEC 3.9)."""

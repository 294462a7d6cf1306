"""Audit: one row for every administrative change: who, from where, before and after (SPEC 12)."""

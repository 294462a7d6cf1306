"""Integrity: what must hold between rows at every commit, as named invariants in SQL.

Checking reads one snapshot and repairs nothing; what does not hold becomes an incident, one for
each invariant. The hash chain itself is `enforcement.ledger.verification`'s.
"""

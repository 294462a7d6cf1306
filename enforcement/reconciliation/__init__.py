"""Reconciliation: reservations confirmed, settled against what was spent, or released (SPEC 5).

A family of charges settles once, whoever is first: by hand, or when its time is over. Each
settlement is on the ledger, and what drifted too far or was posted unseen is an exception.
"""

"""Accounts: budgets, credit grants and the tenant's exposure, each with kept totals.

Invariants, at every commit: a grant's total equals remaining + reserved + consumed and none is
negative; an account's pending and each month's posted and overrun equal the sums of its lines.
Nothing here sums history: headroom is arithmetic on rows that are already locked.
"""

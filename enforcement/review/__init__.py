"""Reviews: what people decide about a change, and what becomes of its hold (SPEC 6).

Each use case touches approvals, reservations and the ledger in one transaction, in the order of
``valdrix.kernel.locks``; persons are compared, never credentials.
"""

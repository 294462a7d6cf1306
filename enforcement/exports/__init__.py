"""Exports: what finance recomputes and an auditor verifies without trusting us (SPEC 9).

One snapshot at a stated position of the ledger. The same window, data and position give the same
bytes: nothing is written, no clock is read, and the order of everything is the ledger's.
"""

"""The gate's core: pure rules that decide, and the one shell that makes a decision true.

Invariants: ``decide`` does no I/O and reads no clock; nothing short-circuits; the strictest
finding wins; only an outcome that goes ahead, or waits for approval, reserves.
"""

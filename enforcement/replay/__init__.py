"""Replay and simulation: the one pure ``decide`` on what was stored (SPEC 10, BSAFE-002).

Replay runs it under the policy that was in force and must get the same bytes. Simulation runs it
under another policy and says what would have been. Neither writes to the record.
"""

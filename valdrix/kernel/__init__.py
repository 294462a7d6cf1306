"""The kernel: what every app stands on and what knows no app.

Money, canonical bytes, strict JSON, signing, problems, transactions and locks. Nothing here
imports ``governance``, ``billing``, ``enforcement`` or ``telemetry``.
"""

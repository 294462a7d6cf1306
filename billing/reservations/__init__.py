"""Reservations: what decisions hold of accounts until it is settled.

A change has one charge however many times it is asked about; each decision owns the lines of
its own increase, and every line goes from pending to posted or voided exactly once.
"""

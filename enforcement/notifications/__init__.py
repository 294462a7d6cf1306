"""Notifications: what people are told after it was committed, by e-mail and webhook (SPEC 6).

The ledger's entries and the budget alerts are the outbox: they are written in the transaction of what
they tell, so nothing is told that did not happen and nothing that happened is left untold. A job
spreads them into deliveries, each once, and sends those with retries; the gate waits for nothing.
"""

"""Adapters: each surface's payload becomes a ``GateRequest``, and an outcome its payload. Pure."""

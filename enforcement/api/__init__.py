"""Doors over HTTP: the gate, its money, its policies and its proofs."""

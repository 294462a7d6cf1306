"""Decisions: one immutable row for each evaluated request, with all that it was computed from."""

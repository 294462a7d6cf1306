"""Approvals: a person's review of a decision that policy says a person must make."""

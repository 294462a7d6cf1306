"""Controls: people's changes to what may be spent and to what is allowed.

Each change is one transaction: lock, check, write, audit entry, ledger entry last. A refusal
writes nothing. Free text (reasons, comments, team names) stays out of the ledger, which keeps
``details_sha256`` of what the audit log shows as the object after the change.
"""

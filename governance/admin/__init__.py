"""The console pages of policies, approvals, the audit log and credentials."""

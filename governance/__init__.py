"""What is allowed, and who is who: tenants, identity, policies, approvals, audit."""

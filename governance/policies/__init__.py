"""Policies: what a tenant's own document says a change may cost, and who must agree to it.

The document is authoritative: schema ``valdrix.enforcement.policy.v1`` (SPEC 4, docs/policy.md).

- Every default is the strict side: an empty document is the strictest policy there is.
- A member that is not known, or has a wrong value, is refused; it never counts as absent.
- A published version is never changed; its SHA-256 is taken of the very text that is stored.
- Nothing in ``domain``, ``environments``, ``document``, ``comparison``, ``schema``,
  ``expressions`` and ``syntax`` reads a clock, a table or the network.
"""

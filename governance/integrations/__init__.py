"""Integrations: other systems that a tenant has connected, each with a secret of its own (SPEC 12).

A run task signs what it sends with its secret, a cluster proves itself with it, a webhook is
signed with it. The secret is shown once and stored sealed; it is bound to the integration's id.
"""

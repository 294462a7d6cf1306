"""Workloads: CI jobs and service accounts that prove who they are by an OIDC token (SPEC 12).

An owner registers an issuer and the claims that its tokens must have; a token that has them
speaks for one project as a member, and no secret is stored anywhere.
"""

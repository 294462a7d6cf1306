"""Identity: people, their memberships, and the API keys that machines use (SPEC 12).

Every credential has a responsible person; an API key is stored as a digest and shown once.
"""

"""Tokens: one signed, single-use text for an approval that was given (SPEC 6, RFC 8725).

One algorithm, keys that overlap while they are rotated, and a row a token: what a token's text
says counts only as far as its row says the same.
"""

"""Evidence: what a release is promoted on, and the verifiers that recompute it (SPEC 15).

A verifier trusts no figure that it can compute, reports every problem with a JSON pointer, and
repairs nothing. Templates and placeholders never verify. Everything here is pure: files, the clock
and the existence of paths are handed in.
"""

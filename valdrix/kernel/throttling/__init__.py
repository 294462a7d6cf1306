"""Throttling: how often something may happen, counted over all threads and processes (SPEC 8, 16).

A limit is a bucket of tokens; a token that was taken comes back one window later. So never more
than the limit pass within any window, wherever it begins, and at most a twentieth less.
"""

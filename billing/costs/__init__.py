"""Costs: what projects really spent, a day at a time, as ingested.

Promised: the kept total of a project's day is the sum of its units, rounded once; a file is taken
whole or not at all, once; whatever replaces a unit says so. Readers of files are pure.
"""

"""Admission: a Kubernetes review from its exemptions to its verdict (SPEC 8).

A dry run leaves no row. What the old object of a later review proves to be in force is confirmed.
A review that cannot be judged is never an allow, unless the mode in force lets failures through.
"""

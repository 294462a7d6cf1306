"""Demo: what `make run` shows on an empty database, and how the decision is printed.

Everything is made by the use cases that people's requests go through, so that it is audited and
on the ledger. Making it again changes nothing, and nothing that people changed is put back.
"""

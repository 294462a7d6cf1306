"""The ledger: append-only, hash-chained, one gapless sequence a tenant (SPEC 7).

``entry_hash = SHA-256(prev_hash || canonical entry)``, with ``prev_hash`` as 32 raw bytes, zeros
before the first entry. The database refuses an insert that does not continue the chain, and
every other kind of write.
"""

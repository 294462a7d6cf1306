"""The PostgreSQL that `make run`, `make test` and `manage.py` start, and what `make run` supervises.

Everything here is standard library only and imports nothing of Django or of the other apps: it runs
before settings can be loaded. Rules that hold everywhere in this package:

- a cluster is durable: fsync, synchronous_commit and full_page_writes are on, and that is checked;
- a running server is never stopped while another live process still uses it;
- nothing that this package did not create is ever given other permissions;
- no password is on a command line, in a log or in a world-readable file.

Why the server's programs come from a wheel: docs/adr/0001-embedded-postgresql.md.
"""

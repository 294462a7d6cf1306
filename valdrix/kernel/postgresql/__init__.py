"""The database backend: PostgreSQL as Django has it, with limits on how long it may be waited for.

Time-outs of statements and locks are the server's to keep. What it cannot keep, because the
server, or the way to it, has gone silent, is kept here: no caller that set a limit waits longer
for a connection or for an answer, and a server that does not answer is not asked by every caller.
"""

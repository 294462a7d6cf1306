"""Run tasks: calls of HCP Terraform that were taken, and what has to be told back (SPEC 8).

A call is answered at once by storing it; a job decides it and tells the platform. Whatever is
killed in the middle is taken up again: a decision is found by its id, a callback may be repeated.
The platform's token is stored sealed and forgotten as soon as nothing more has to be told.
"""

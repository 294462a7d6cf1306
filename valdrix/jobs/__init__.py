"""Jobs: what runs by the clock, wherever the clock is: in Celery, or in `manage.py run_jobs`.

One run of a singleton job at a time, over all processes and machines, by an advisory lock in the
database. A job that fails is told and tried again; it stops no other.
"""

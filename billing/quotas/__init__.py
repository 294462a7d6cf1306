"""Quotas: metered use, held before it is spent and counted afterwards (SPEC 13, LLM-001..004).

What a tenant, each of its people and its system actors may use in a UTC day is bounded by its tier. A
request reserves what it may need, and commits what it really used or releases it; both counts of a
reservation, the tenant's and the actor's, move together, under their locks. Counts are kept, not summed,
and always equal to what the reservations say. A reservation that nobody closed gives back what it held
when its time is over; what it used all the same is counted when it is told.
"""

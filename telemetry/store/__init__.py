"""The store: telemetry's own connections, as its own role, each with its own time-outs.

Nothing here is shared with the connections of truth. The role can use telemetry's tables and
nothing else, and its number of connections is limited, so that it can take no other's place.
"""

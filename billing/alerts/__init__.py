"""Budget alerts: that a budget reached a level of its limit in a month, once for each level.

A row is written when the level is first seen to be reached, and stays true: it says what was used of
which limit then. Nothing on the gate's path writes or reads one.
"""

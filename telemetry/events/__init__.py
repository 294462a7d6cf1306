"""Events: what was observed, from the emitter's queue into one table.

What always holds here:

- whoever emits waits for nothing but the queue's own lock, which is held for microseconds and
  never during I/O, and gets neither an answer nor an exception;
- the queue, one event's size and the number of different values of a free text are bounded;
- every event that was offered is counted exactly once: written, known already, or lost and why;
- writing has a connection of its own and shares no transaction with anything.
"""

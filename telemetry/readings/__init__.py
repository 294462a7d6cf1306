"""Readings: aggregates over events, with time-outs and honest empty states.

What always holds here:

- a reading is an answer whatever the store does: data, or ``available: false`` and the reason;
- whoever asks waits for a bounded time, even for a store that accepts and never answers, and only
  a few readings run at one time in a process;
- rows that make no sense are skipped and counted, and what was cut says so.
"""

"""Benchmarks: the gate against floors that are measured in the same run. Command: make bench."""

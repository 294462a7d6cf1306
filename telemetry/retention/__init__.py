"""Retention: events older than their time are deleted, in small batches, giving way to locks."""

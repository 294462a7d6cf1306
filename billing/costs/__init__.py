"""Costs: what projects really spent, a day at a time, as ingested."""

"""Incidents: what is wrong and needs a person, as rows of truth."""

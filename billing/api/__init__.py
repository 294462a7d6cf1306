"""Doors over HTTP: how often each tier may call."""

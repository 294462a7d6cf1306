"""Doors over HTTP: authentication and permissions for every API, and identity's own API."""

"""Certification: what needs every app at once: captured evidence, and the gate of a release."""

"""Certification: that telemetry cannot touch truth, tried for real on a server of its own."""

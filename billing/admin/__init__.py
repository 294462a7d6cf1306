"""The console pages of reservations."""

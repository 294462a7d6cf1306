"""Commands of who is who and what is allowed."""

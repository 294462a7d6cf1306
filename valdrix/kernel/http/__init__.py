"""HTTP conventions every door shares: bodies, problems, request ids, pages (SPEC 17)."""

"""Plans: the tiers, what each may spend, and which tier a tenant is on (SPEC 13)."""

"""Tenants: the organisations that use Valdrix. Every business row belongs to exactly one."""

"""The console pages of decisions, the ledger, and money against its limits."""

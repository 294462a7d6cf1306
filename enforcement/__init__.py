"""The gate: from a request to a decision, its record and its proof."""

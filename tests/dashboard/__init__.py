"""The shipped dashboard, drawn from the answers of a Prometheus that scraped a served Valdrix."""

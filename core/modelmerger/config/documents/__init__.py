"""Config files: YAML and JSON from anywhere, read strictly and within fixed limits."""

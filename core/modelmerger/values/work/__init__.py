"""The work of a merge as plain data."""

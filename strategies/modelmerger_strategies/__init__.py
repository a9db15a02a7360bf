"""The built-in strategies, one in each module."""

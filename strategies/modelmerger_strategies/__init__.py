"""The built-in strategies, one a module."""

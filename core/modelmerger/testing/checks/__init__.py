"""Checks that any plugin of a kind passes, if it keeps what its kind promises; each is a function with a docstring."""

"""Entries of `models` that stand for several models: found before anything else is read of a config."""

"""Adapters merged into one: in their factors, exactly or at a given rank."""

"""A base with adapters folded in, computed as it is read."""

"""A strategy is tried out on a few slices, so that time and memory of the whole merge are known."""

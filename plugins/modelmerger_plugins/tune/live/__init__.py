"""The merge at any numbers as a whole model in memory: for strategies and measures that have no gradient."""

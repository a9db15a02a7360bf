"""What a shell may complete, and how each shell is told."""

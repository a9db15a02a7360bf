"""What hooks are handed, where it is more than a few values."""

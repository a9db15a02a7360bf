"""The checks of what hooks give back, where it is more than a few values."""

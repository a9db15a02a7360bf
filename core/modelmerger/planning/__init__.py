"""From opened models to a plan: every byte to be read and written."""

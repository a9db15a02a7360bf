"""Sinks that keep tensors in place of files."""

"""Costly questions of plugins about what will be written, answered in processes of their own."""

"""The source of plugins: found without importing anything, read, and digested."""

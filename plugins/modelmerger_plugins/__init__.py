"""The built-in plugins that are on in every merge."""

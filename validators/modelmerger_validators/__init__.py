"""The built-in validators, one a module. There are none yet."""

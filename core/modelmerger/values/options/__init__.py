"""What the values of a config are checked by, and the options of every merge."""

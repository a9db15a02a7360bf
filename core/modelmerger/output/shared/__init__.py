"""What keeps machines apart that write to one output, and what they leave for each other."""

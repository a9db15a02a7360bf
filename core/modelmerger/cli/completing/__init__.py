"""What a shell may complete, and how each shell is told."""

PROGRAM = "modelmerger"
VARIABLE = f"_{PROGRAM.upper()}_COMPLETE"
"""The variable of the environment in which a shell says that it wants words to choose from, and not the command."""

"""What the user asks for, read strictly and settled once."""

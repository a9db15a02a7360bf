"""What the user asks for: read strictly, and resolved once."""

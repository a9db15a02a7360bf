"""Plain values that every room speaks of; nothing heavy is imported here."""

"""Memory: how much this process has, when it goes back to the system, and how much is left."""

"""Memory: how much this process has, and when it goes back to the system."""

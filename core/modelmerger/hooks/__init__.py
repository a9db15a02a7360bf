"""What plugins can do, who they are, and how they are called."""

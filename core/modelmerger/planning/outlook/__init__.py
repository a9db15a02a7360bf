"""What a planned merge will meet on this machine: how long it will take, and how much memory."""

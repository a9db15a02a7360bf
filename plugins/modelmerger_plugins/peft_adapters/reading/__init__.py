"""What the files of an adapter mean for its base: which tensors it changes, and how. No weights are read."""

"""What is installed, as its metadata says."""

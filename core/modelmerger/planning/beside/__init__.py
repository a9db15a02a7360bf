"""The files beside the weights: what the output will have of them, and what becomes of every file of a source."""

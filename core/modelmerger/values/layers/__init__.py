"""Layers of a model, as a config names them."""

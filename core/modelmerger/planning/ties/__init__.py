"""Matrices that are one: the embedding, the LM head and whatever else a model's class ties."""

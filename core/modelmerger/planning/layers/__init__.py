"""Layers of models: some of them, in another order, or of several models one on another."""

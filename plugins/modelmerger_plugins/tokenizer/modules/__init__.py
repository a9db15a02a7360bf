"""Modules of an embedding model whose weights lie in folders of their own: merged as the model is, and put there."""

"""Weights of a model that lie in a folder of their own: seen with the model's, and written to a folder again."""

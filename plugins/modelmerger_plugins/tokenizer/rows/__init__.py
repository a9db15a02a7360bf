"""Rows of embeddings and heads, matched by token: views of models whose vocabularies differ."""

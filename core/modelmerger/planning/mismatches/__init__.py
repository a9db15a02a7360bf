"""What does not fit between two models, one problem for each cause: shapes, names, quantised weights."""

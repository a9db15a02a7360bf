"""What an adapter does to one tensor of its base, formula by formula."""

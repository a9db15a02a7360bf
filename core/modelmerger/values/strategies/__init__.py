"""What strategies say of a merge beside the merged tensors."""

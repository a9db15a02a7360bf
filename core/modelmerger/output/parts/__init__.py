"""What a share of a merge writes."""

"""What is written, journalled, published and verified."""

"""What stands where the output goes: an earlier output, and what others have put into it."""

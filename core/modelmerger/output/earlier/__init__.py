"""What stands where the output goes: an earlier output, what others have put into it, or an input."""

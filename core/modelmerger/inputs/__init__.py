"""Files that are read, none of them believed before it is checked."""

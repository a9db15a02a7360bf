"""When inputs are read: ahead of the work, and once where they can be kept."""

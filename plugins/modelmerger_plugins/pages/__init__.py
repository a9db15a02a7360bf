"""HTML pages that need no other file: one frame and style, every text escaped, nothing that runs or loads."""

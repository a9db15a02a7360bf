"""How the work of a merge is shared out: what is to be done next, who does it, and what has come of it."""

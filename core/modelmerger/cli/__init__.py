"""The command line, a thin layer over the Python API. Every failure is a line on stderr and an exit status."""

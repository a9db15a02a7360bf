"""The command line: a thin shim over the Python API. Every failure is a line on stderr and an exit status."""

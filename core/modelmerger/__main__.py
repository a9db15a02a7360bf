"""`python -m modelmerger`."""

from modelmerger.cli import run

run()

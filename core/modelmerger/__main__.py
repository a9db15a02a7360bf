"""`python -m modelmerger`."""

from modelmerger.cli.process import run

run()

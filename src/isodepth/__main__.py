"""`python -m isodepth`."""

from isodepth.cli import entry

entry()

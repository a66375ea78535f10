"""`python -m isodepth`, which is also how `torchrun -m isodepth train` starts every rank."""

from isodepth.cli import entry

entry()

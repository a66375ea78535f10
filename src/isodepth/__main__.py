"""`python -m isodepth`, which is also how `torchrun -m isodepth train` starts every rank."""

from isodepth.cli import entry

if __name__ == "__main__":  # a process that spawns others imports this once more under another name
    entry()

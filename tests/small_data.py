"""A small prepared data set."""

from pathlib import Path

from isodepth.training.prepare import prepare
from isodepth.training.sources import Source, open_source


def standard_library(out: Path, n: int) -> Path:
    """n files of the standard library, cut short, as bytes."""
    texts = [text[:3000] for text in open_source("stdlib").documents()][:n]
    source = Source(name="part of the standard library", documents=lambda: iter(texts))
    prepare(source, out, tokenizer="bytes", validation_fraction=0.1)
    return out

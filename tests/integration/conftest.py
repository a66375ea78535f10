import pytest

from isodepth.training.prepare import prepare
from isodepth.training.sources import Source, open_source


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A prepared data set: 80 files of the standard library, cut short, as bytes."""
    texts = [text[:3000] for text in open_source("stdlib").documents()][:80]
    source = Source(name="part of the standard library", documents=lambda: iter(texts))
    out = tmp_path_factory.mktemp("data") / "bytes"
    prepare(source, out, tokenizer="bytes", validation_fraction=0.1)
    return out

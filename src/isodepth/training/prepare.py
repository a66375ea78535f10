"""`isodepth data prepare`: text in, a folder of token shards out.

Documents stream through: memory does not grow with the source. The tokenizer works on all cores.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from isodepth.errors import InputError
from isodepth.training.data import (
    FORMAT,
    HEADER_FILE,
    LENGTH_TYPE,
    TOKENIZER_FILE,
    Header,
    Shard,
    SplitName,
    file_sha256,
)
from isodepth.training.sources import Source
from isodepth.training.tokens import Tokenizer, Tokens, build_tokenizer

SHARD_TOKENS = 1 << 27
BATCH_CHARACTERS = 1 << 23  # handed to the tokenizer at a time
BATCH_DOCUMENTS = 4096


def prepare(
    source: Source,
    out: Path,
    *,
    tokenizer: str,
    validation_fraction: float = 0.05,
    seed: int = 0,
    start_token: str | None = None,
    shard_tokens: int = SHARD_TOKENS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Header:
    """Tokenise a source into the new folder `out`.

    Parameters
    ----------
    source: from `open_source`.
    out: a folder that doesn't exist yet, or is empty. It appears whole or not at all.
    tokenizer, start_token: as for `build_tokenizer`. A BPE learns from training documents only.
    validation_fraction: share of documents held out. Which ones is decided by a hash of
        (seed, text), so copies of a document never lie on both sides.
    shard_tokens: a shard is closed at the first document end beyond this many tokens.
    on_progress: called now and then with (documents, tokens) so far.

    Raises InputError where the source can't be read or leaves a split without a document.
    """
    if not 0 < validation_fraction < 1:
        raise InputError(f"the validation fraction {validation_fraction} must lie in (0, 1)")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; choose another place")

    def held_out(text: str) -> bool:
        return _is_validation(text, fraction=validation_fraction, seed=seed)

    training_texts = (text for text in source.documents() if text and not held_out(text))
    built = build_tokenizer(tokenizer, training_texts, start_token=start_token)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        written = _write_splits(source, partial, built, held_out, shard_tokens, on_progress)
        built.save(partial / TOKENIZER_FILE)
        header = Header(
            format=FORMAT,
            source=source.name,
            tokenizer=tokenizer,
            vocabulary=built.vocab,
            start=built.start,
            token_bytes=written.token_bytes,
            seed=seed,
            validation_fraction=validation_fraction,
            empty_documents=written.empty_documents,
            train=written.train,
            validation=written.validation,
            sha256_tokenizer=file_sha256(partial / TOKENIZER_FILE),
        )
        (partial / HEADER_FILE).write_text(json.dumps(header.to_json(), indent=1) + "\n")
        partial.chmod(0o755)  # mkdtemp makes it private
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return header


@dataclass(frozen=True, kw_only=True)
class _Written:
    token_bytes: int
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    empty_documents: int


def _is_validation(text: str, *, fraction: float, seed: int) -> bool:
    digest = hashlib.blake2b(
        text.encode("utf-8", errors="replace"), digest_size=8, key=str(seed).encode()
    ).digest()
    return int.from_bytes(digest, "big") < fraction * 2.0**64


def _write_splits(
    source: Source,
    folder: Path,
    tokenizer: Tokenizer,
    held_out: Callable[[str], bool],
    shard_tokens: int,
    on_progress: Callable[[int, int], None] | None,
) -> _Written:
    token_bytes = 2 if tokenizer.vocab <= 1 << 16 else 4
    empty = documents = tokens = 0
    with (
        _SplitWriter(folder, "train", token_bytes, shard_tokens) as train,
        _SplitWriter(folder, "validation", token_bytes, shard_tokens) as validation,
    ):
        for texts in _batches(source.documents()):
            for text, encoded in zip(texts, tokenizer.encode(texts), strict=True):
                if len(encoded) == 0:
                    empty += 1
                    continue
                (validation if held_out(text) else train).add(encoded)
                documents, tokens = documents + 1, tokens + len(encoded)
            if on_progress is not None:
                on_progress(documents, tokens)
    for name, writer in (("training", train), ("validation", validation)):
        if not writer.shards:
            raise InputError(
                f"no document of {source.name} fell into the {name} split ({documents} documents "
                "in all); give more documents, split text files with --separator, or change the "
                "validation fraction"
            )
    return _Written(
        token_bytes=token_bytes,
        train=tuple(train.shards),
        validation=tuple(validation.shards),
        empty_documents=empty,
    )


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _SplitWriter:
    """Writes the shards of one split."""

    def __init__(self, folder: Path, split: SplitName, token_bytes: int, shard_tokens: int) -> None:
        self.shards: list[Shard] = []
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._dtype = np.dtype(f"<u{token_bytes}")
        self._open: _OpenShard | None = None

    def __enter__(self) -> "_SplitWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def add(self, tokens: Tokens) -> None:
        if self._open is None:
            name = f"{self._split}-{len(self.shards):05d}"
            self._open = _OpenShard(self._folder, name)
        self._open.add(tokens.astype(self._dtype).tobytes(), len(tokens))
        if self._open.tokens >= self._shard_tokens:
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            self.shards.append(self._open.close())
            self._open = None


class _OpenShard:
    """A shard being written, with its checksum so far."""

    def __init__(self, folder: Path, name: str) -> None:
        self.tokens = 0
        self._name = name
        self._lengths: list[int] = []
        self._lengths_file = folder / f"{name}.lengths"
        self._stream: BinaryIO = (folder / f"{name}.tokens").open("wb")
        self._sha256 = hashlib.sha256()

    def add(self, content: bytes, tokens: int) -> None:
        self._stream.write(content)
        self._sha256.update(content)
        self._lengths.append(tokens)
        self.tokens += tokens

    def close(self) -> Shard:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        lengths = np.array(self._lengths, dtype=LENGTH_TYPE).tobytes()
        self._lengths_file.write_bytes(lengths)
        return Shard(
            name=self._name,
            documents=len(self._lengths),
            tokens=self.tokens,
            sha256_tokens=self._sha256.hexdigest(),
            sha256_lengths=hashlib.sha256(lengths).hexdigest(),
        )

"""A prepared data set on disk: memory-mapped token shards, read as packed rows.

Layout of the folder:

* `dataset.json`: the header, one `Header` as JSON;
* `tokenizer.json`: what `load_tokenizer` reads;
* `train-00000.tokens`, …, `validation-00000.tokens`, …: document tokens, one after the other, as
  little-endian unsigned integers of `token_bytes` bytes, without start tokens;
* `train-00000.lengths`, …: the length of each document of that shard, 4 bytes each.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isodepth.errors import InputError
from isodepth.training.config import LongDocuments
from isodepth.training.packing import Packing, pack
from isodepth.training.tokens import Tokenizer, load_tokenizer

SplitName = Literal["train", "validation"]

FORMAT = 1
HEADER_FILE = "dataset.json"
TOKENIZER_FILE = "tokenizer.json"
LENGTH_TYPE = np.dtype("<u4")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One pair of files, `NAME.tokens` and `NAME.lengths`."""

    name: str
    documents: int
    tokens: int
    sha256_tokens: str
    sha256_lengths: str


@dataclass(frozen=True, kw_only=True)
class Header:
    """What `dataset.json` holds."""

    format: int
    source: str  # as named at preparation
    tokenizer: str  # as named at preparation
    vocabulary: int  # token numbers lie below this
    start: int  # the token that begins a document
    token_bytes: int  # 2 or 4
    seed: int  # of the split
    validation_fraction: float  # of documents, asked for
    empty_documents: int  # left out
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    sha256_tokenizer: str

    def shards(self, split: SplitName) -> tuple[Shard, ...]:
        return self.train if split == "train" else self.validation

    def documents(self, split: SplitName) -> int:
        return sum(shard.documents for shard in self.shards(split))

    def tokens(self, split: SplitName) -> int:
        """Document tokens of a split; start tokens are not counted."""
        return sum(shard.tokens for shard in self.shards(split))

    def checksum(self) -> str:
        """SHA-256 over everything that determines a token: equal for equal data sets."""
        content = [
            self.format, self.vocabulary, self.start, self.token_bytes, self.sha256_tokenizer,
        ]  # fmt: skip
        for shards in (self.train, self.validation):
            content.append([[s.documents, s.sha256_tokens, s.sha256_lengths] for s in shards])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "checksum": self.checksum(),
            "documents": {name: self.documents(name) for name in ("train", "validation")},
            "tokens": {name: self.tokens(name) for name in ("train", "validation")},
        }


def read_header(folder: Path) -> Header:
    """The header of a prepared data set.

    Raises InputError where the folder holds none, or one that was altered or of another format.
    """
    file = folder / HEADER_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is not a prepared data set (no {HEADER_FILE}); make one with "
            "`isodepth data prepare`"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read ({error})") from error
    try:
        if content["format"] != FORMAT:
            raise InputError(
                f"{file}: format {content['format']}, this version reads format {FORMAT}; "
                "prepare the data again"
            )
        stated = content.pop("checksum")
        del content["documents"], content["tokens"]
        for name in ("train", "validation"):
            content[name] = tuple(Shard(**shard) for shard in content[name])
        header = Header(**content)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a data set header ({error!r})") from error
    if header.checksum() != stated:
        raise InputError(f"{file} was altered: its checksum does not match its content")
    return header


class Rows:
    """The packed rows of one split; `batch` gives them as arrays."""

    def __init__(
        self, data: "TokenData", split: SplitName, *, packing: Packing, capacity: int
    ) -> None:
        folder, header = data.folder, data.header
        self._packing = packing
        self._start = header.start
        dtype = np.dtype(f"<u{header.token_bytes}")
        self._shards = [_map(folder, shard, dtype) for shard in header.shards(split)]
        self._shard_starts = np.cumsum([0] + [shard.tokens for shard in header.shards(split)])
        lengths = document_lengths(folder, header, split)
        self._document_starts = np.cumsum(lengths, dtype=np.int64) - lengths
        self._capacity = capacity

    def __len__(self) -> int:
        return self._packing.rows

    def batch(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens [len(indices), sequence_length + 1]; each row begins with a start token."""
        batch = np.empty((len(indices), self._capacity), dtype=np.int64)
        for target, row in zip(batch, indices.tolist(), strict=True):
            self._fill(target, row)
        return batch

    def _fill(self, target: NDArray[np.int64], row: int) -> None:
        packing, filled = self._packing, 0
        for piece in range(packing.first[row], packing.first[row + 1]):
            length = int(packing.length[piece])
            target[filled] = self._start
            begin = int(self._document_starts[packing.document[piece]] + packing.offset[piece])
            # A document lies in one shard: shards are closed between documents.
            shard = int(np.searchsorted(self._shard_starts, begin, side="right")) - 1
            begin -= int(self._shard_starts[shard])
            target[filled + 1 : filled + 1 + length] = self._shards[shard][begin : begin + length]
            filled += 1 + length


@dataclass(frozen=True, kw_only=True)
class TokenData:
    """A prepared data set, opened."""

    folder: Path
    header: Header

    def rows(
        self,
        split: SplitName,
        *,
        sequence_length: int,
        long_documents: LongDocuments = "split",
    ) -> Rows:
        """The rows of a split, packed for this sequence length.

        Raises InputError where the split can't fill a single row.
        """
        if sequence_length < 1:
            raise InputError(f"sequence_length = {sequence_length} must be at least 1")
        packing = _packing(self, split, sequence_length + 1, long_documents)
        if packing.rows == 0:
            raise InputError(
                f"{self.folder}: the {split} split ({self.header.documents(split)} documents, "
                f"{self.header.tokens(split)} tokens) can't fill one row of {sequence_length} "
                "tokens"
            )
        return Rows(self, split, packing=packing, capacity=sequence_length + 1)

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder / TOKENIZER_FILE)

    def verify(self) -> None:
        """Read everything once and compare checksums; raises InputError naming altered files."""
        altered = []
        expected = {TOKENIZER_FILE: self.header.sha256_tokenizer}
        for shard in self.header.train + self.header.validation:
            expected[f"{shard.name}.tokens"] = shard.sha256_tokens
            expected[f"{shard.name}.lengths"] = shard.sha256_lengths
        for name, checksum in expected.items():
            if file_sha256(self.folder / name) != checksum:
                altered.append(f"{self.folder / name} was altered since the data were prepared")
        if altered:
            raise InputError(altered)


@lru_cache(maxsize=4)  # a sweep's worker trains run after run on the same rows
def _packing(
    data: TokenData, split: SplitName, capacity: int, long_documents: LongDocuments
) -> Packing:
    lengths = document_lengths(data.folder, data.header, split)
    return pack(lengths, capacity=capacity, long_documents=long_documents)


def open_data(folder: Path) -> TokenData:
    """Open a prepared data set; sizes are checked here, checksums by `verify`.

    Raises InputError where a file is missing or has the wrong size.
    """
    header = read_header(folder)
    problems = []
    for shard in header.train + header.validation:
        sizes = {
            f"{shard.name}.tokens": shard.tokens * header.token_bytes,
            f"{shard.name}.lengths": shard.documents * LENGTH_TYPE.itemsize,
        }
        for name, size in sizes.items():
            file = folder / name
            if not file.is_file():
                problems.append(f"{file} is missing")
            elif file.stat().st_size != size:
                problems.append(f"{file} has {file.stat().st_size} bytes, not {size}")
    if problems:
        raise InputError(problems)
    return TokenData(folder=folder, header=header)


def document_lengths(folder: Path, header: Header, split: SplitName) -> NDArray[np.int64]:
    """Tokens of every document of a split, in order, start tokens not counted."""
    parts = [
        np.fromfile(folder / f"{shard.name}.lengths", dtype=LENGTH_TYPE)
        for shard in header.shards(split)
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _map(folder: Path, shard: Shard, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.memmap(folder / f"{shard.name}.tokens", dtype=dtype, mode="r")

"""From text to token numbers and back: any `tokenizer.json`, a BPE trained on the source, bytes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from isodepth.errors import InputError

if TYPE_CHECKING:
    import tokenizers

Tokens = NDArray[np.uint32]

# How common tokenizers name the token that begins a document; the first one present is taken.
START_TOKENS = (
    "<s>", "<|bos|>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "<|endoftext|>",
)  # fmt: skip
BPE_START = "<|bos|>"
BPE_SAMPLE = 1 << 28  # characters that a BPE learns from; more text no longer moves the merges
SMALLEST_BPE = 257  # every byte, and the start token

_BYTES_FILE = {"isodepth": "bytes"}


class Tokenizer(Protocol):
    """Turns documents into token numbers below `vocab`; `start` begins every document."""

    @property
    def vocab(self) -> int: ...
    @property
    def start(self) -> int: ...
    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, without start tokens."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens; start tokens give no text."""
        ...

    def save(self, file: Path) -> None:
        """Write what `load_tokenizer` reads."""
        ...


def build_tokenizer(
    spec: str, texts: Iterable[str], *, start_token: str | None = None
) -> Tokenizer:
    """The tokenizer that `spec` names.

    Parameters
    ----------
    spec: `bytes`, `bpe:SIZE` (a byte-level BPE of SIZE entries, learnt from `texts`), or the path
        of a `tokenizer.json`.
    texts: read only for a BPE, up to `BPE_SAMPLE` characters.
    start_token: the text of the token that begins a document, where a `tokenizer.json` has
        several candidates or an unusual one.

    Raises InputError where `spec` names nothing, or the start token isn't in the vocabulary.
    """
    if spec == "bytes":
        return ByteTokenizer()
    if spec.startswith("bpe:"):
        size = spec.removeprefix("bpe:")
        if not size.isdecimal() or int(size) < SMALLEST_BPE:
            raise InputError(f"tokenizer {spec!r}: write bpe:SIZE with SIZE >= {SMALLEST_BPE}")
        return _train_bpe(int(size), texts)
    path = Path(spec).expanduser()
    if not path.is_file():
        raise InputError(
            f"tokenizer {spec!r} is neither `bytes`, `bpe:SIZE`, nor a tokenizer.json that exists"
        )
    return load_tokenizer(path, start_token=start_token)


def load_tokenizer(file: Path, *, start_token: str | None = None) -> Tokenizer:
    """Read a `tokenizer.json` of the library `tokenizers`, or the file that `bytes` leaves.

    Raises InputError for a file that is neither, or that has no start token.
    """
    try:
        content = file.read_text(encoding="utf-8")
        if json.loads(content) == _BYTES_FILE:
            return ByteTokenizer()
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not a tokenizer file ({error})") from error
    library = _library()
    try:
        inner = library.Tokenizer.from_str(content)
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{file} is not a tokenizer.json ({error})") from error
    candidates = START_TOKENS if start_token is None else (start_token,)
    present = [token for name in candidates if (token := inner.token_to_id(name)) is not None]
    if not present:
        raise InputError(
            f"{file} has none of the start tokens {', '.join(candidates)}; name the token that "
            "begins a document with --start-token"
        )
    return LibraryTokenizer(inner, start=present[0])


class ByteTokenizer:
    """UTF-8 bytes as tokens 0 to 255; 256 begins a document."""

    vocab = 257
    start = 256

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        return [
            np.frombuffer(text.encode("utf-8", errors="replace"), dtype=np.uint8).astype(np.uint32)
            for text in texts
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode("utf-8", errors="replace")

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(_BYTES_FILE) + "\n", encoding="utf-8")


class LibraryTokenizer:
    """A tokenizer of the library `tokenizers`; `encode` uses every core."""

    def __init__(self, inner: "tokenizers.Tokenizer", *, start: int) -> None:
        self._inner = inner
        # A document that spells a special token out must not be able to forge one.
        inner.encode_special_tokens = True
        inner.no_truncation()
        inner.no_padding()
        self._start = start
        # Token numbers may have gaps, so the largest counts, not how many there are.
        self._vocab = max(inner.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def vocab(self) -> int:
        return self._vocab

    @property
    def start(self) -> int:
        return self._start

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        # A lone surrogate, which JSON can carry, is not Unicode text; the library refuses it.
        clean = [text.encode("utf-8", errors="replace").decode("utf-8") for text in texts]
        encodings = self._inner.encode_batch_fast(clean, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, tokens: Sequence[int]) -> str:
        known = [token for token in tokens if token < self._vocab]
        return str(self._inner.decode(known, skip_special_tokens=True))

    def save(self, file: Path) -> None:
        self._inner.save(str(file))


def _train_bpe(size: int, texts: Iterable[str]) -> LibraryTokenizer:
    library = _library()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = library.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BPE_START],  # special tokens come first: it is token 0
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(_first_characters(texts, BPE_SAMPLE), trainer=trainer)
    if inner.get_vocab_size() < size:
        raise InputError(
            f"the source has only enough text for {inner.get_vocab_size()} BPE entries, not {size}"
        )
    return LibraryTokenizer(inner, start=0)


def _first_characters(texts: Iterable[str], limit: int) -> Iterator[str]:
    taken = 0
    for text in texts:
        yield text
        taken += len(text)
        if taken >= limit:
            return


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(
            "tokenizers other than `bytes` need `pip install isodepth[train]`"
        ) from error
    return tokenizers

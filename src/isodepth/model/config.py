"""The shape of a looped decoder, checked where it enters. No torch here."""

from dataclasses import dataclass, fields
from typing import Self, get_args

from isodepth.accounting import Account, Injection, account, check_untied, split_depth
from isodepth.errors import InputError

VOCABULARY_MULTIPLE = 64  # the published 32,001 entries are padded to 32,064
HEAD_SIZE = 128  # arXiv 2604.21106: every published width is a multiple of it


@dataclass(frozen=True, kw_only=True)
class LoopedConfig:
    """Prelude, recurrent block and coda, with the way the prelude's output enters each pass.

    At `recurrences = 1` the model is the published unlooped arm: one pass through
    `n_prelude + n_recurrent + n_coda` unlike blocks, without injection; the three counts then only
    say how `account` splits the parameters.

    Untied, it is the looped graph of r passes with blocks of its own in every pass, and all else,
    injection and norms, as in the looped model: the unlooped control that differs in sharing alone.

    Raises InputError, naming every fault, for a shape that can't be built.
    """

    width: int  # d, model width
    head_size: int = HEAD_SIZE  # width of one attention head; divides `width`, even
    n_prelude: int  # blocks before the loop
    n_recurrent: int  # blocks of a pass, shared by all passes unless untied
    n_coda: int  # blocks after the loop
    recurrences: int  # r, passes through the recurrent block in training
    injection: Injection = "linear"
    lanes: int = 2  # N, lanes of hyperconnections; no other injection reads it
    backprop_last: int | None = None  # k, passes that carry gradient; None: all
    vocab: int  # true vocabulary: what a token, a target or a sample may be
    sequence_length: int  # T, tokens in a row
    recompute: bool = False  # recompute each pass in the backward instead of storing it
    untied: bool = False  # every pass has blocks of its own

    def __post_init__(self) -> None:
        problems = self._bad_counts()
        if problems:
            raise InputError(problems)
        if self.head_size % 2 or self.width % self.head_size:
            problems.append(
                f"head_size = {self.head_size} must be even and divide width = {self.width}"
            )
        if self.injection not in get_args(Injection):
            problems.append(
                f"injection {self.injection!r} is not one of {', '.join(get_args(Injection))}"
            )
        if self.backprop_last is not None:
            if self.backprop_last > self.recurrences:
                problems.append(
                    f"backprop_last = {self.backprop_last} must lie between 1 and recurrences = "
                    f"{self.recurrences}"
                )
            elif self.injection == "passthrough" and self.backprop_last < self.recurrences:
                problems.append(
                    "passthrough with truncated backpropagation would leave the prelude and the "
                    "embedding without gradient; use another injection, or backprop_last = "
                    f"{self.recurrences}"
                )
        if self.untied:
            try:
                check_untied(self.recurrences, self.backprop_last)
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)

    def _bad_counts(self) -> list[str]:
        least = {"n_prelude": 0, "n_coda": 0}
        problems = []
        for field in fields(self):
            if field.name in ("injection", "recompute", "untied"):
                continue
            value = getattr(self, field.name)
            if field.name == "backprop_last" and value is None:
                continue
            floor = least.get(field.name, 1)
            if isinstance(value, bool) or not isinstance(value, int) or value < floor:
                problems.append(
                    f"{field.name} = {value!r} must be a whole number of at least {floor}"
                )
        return problems

    @classmethod
    def iso_depth(
        cls,
        *,
        width: int,
        recurrences: int,
        vocab: int,
        sequence_length: int,
        depth: int = 20,
        prelude: int = 2,
        coda: int = 2,
        head_size: int = HEAD_SIZE,
        injection: Injection = "linear",
        lanes: int = 2,
        backprop_last: int | None = None,
        recompute: bool = False,
        untied: bool = False,
    ) -> Self:
        """The arm of effective depth `prelude + recurrences · n_recurrent + coda = depth`.

        At `recurrences = 1` that is `depth` unlike blocks (arXiv 2604.21106). Raises InputError
        where `recurrences` does not divide the shared depth.
        """
        return cls(
            width=width,
            head_size=head_size,
            n_prelude=prelude,
            n_recurrent=split_depth(
                depth=depth, recurrences=recurrences, prelude=prelude, coda=coda
            ),
            n_coda=coda,
            recurrences=recurrences,
            injection=injection,
            lanes=lanes,
            backprop_last=backprop_last,
            vocab=vocab,
            sequence_length=sequence_length,
            recompute=recompute,
            untied=untied,
        )

    @property
    def padded_vocab(self) -> int:
        """V, rows of embedding and head; those from `vocab` on get neither logit nor gradient."""
        return padded(self.vocab)

    @property
    def looped(self) -> bool:
        """Whether the graph has a loop, hence an injection."""
        return self.recurrences > 1

    @property
    def recurrent_blocks(self) -> int:
        """Blocks that all passes hold together."""
        return self.n_recurrent * (self.recurrences if self.untied else 1)

    @property
    def depth(self) -> int:
        """Effective depth: blocks that a token passes through."""
        return self.n_prelude + self.recurrences * self.n_recurrent + self.n_coda

    def account(self) -> Account:
        """Parameters and training FLOPs per token of this model, padding counted as published."""
        return account(
            width=self.width,
            recurrences=self.recurrences,
            depth=self.depth,
            injection=self.injection,
            lanes=self.lanes,
            backprop_last=self.backprop_last,
            vocab=self.padded_vocab,
            sequence_length=self.sequence_length,
            prelude=self.n_prelude,
            coda=self.n_coda,
            untied=self.untied,
        )


def padded(vocabulary: int) -> int:
    """The entries of a vocabulary rounded up to a whole number of `VOCABULARY_MULTIPLE`."""
    return -(-vocabulary // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

"""Parameters and training FLOPs of a looped architecture.

Source of every formula: Schwethelm, Rueckert & Kaissis (arXiv 2604.21106) and its released
training code. The conventions, which move the numbers:

* Parameters are non-embedding: the embedding and the head are left out of `n_once`.
* FLOPs count the head (V·d per token) but not the embedding, which is a look-up.
* A matrix product costs 2 FLOPs per parameter forward and 4 backward.
* Attention costs 4·d·T forward per block and token, **not** halved for causality.
* A pass cut from the gradient (truncated backpropagation) costs its forward only.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from isodepth.errors import InputError

Injection = Literal["linear", "additive", "passthrough", "hyperconnections"]

LARGEST = 10**8  # width, vocabulary, tokens in a row: what lies above is a slip
LOOP_NORMS = 3  # after the embedding, at the end of a pass, before the head


@dataclass(frozen=True, kw_only=True)
class Account:
    """What one architecture holds and costs."""

    n_once: int  # parameters used once per token: prelude, coda and the loop-level norms
    n_rec: int  # parameters of the recurrent block: once, or those of all passes if untied
    n_inject: int  # parameters of the injection
    n_total: int  # n_once + n_rec + n_inject: unique non-embedding parameters
    n_embedding: int  # parameters of the untied embedding and head, in none of the above
    flops_per_token: int  # training FLOPs per token, forward and backward


def block_params(width: int) -> int:
    """Parameters of one transformer block: 12d² for q, k, v, o and the 4d MLP; 2d for two norms."""
    return 12 * width**2 + 2 * width


def split_depth(*, depth: int, recurrences: int, prelude: int = 2, coda: int = 2) -> int:
    """Blocks in the loop so that prelude + recurrences · blocks + coda = depth (iso-depth).

    Raises InputError where no whole number of blocks does.
    """
    counts = {"depth": depth, "recurrences": recurrences, "prelude": prelude, "coda": coda}
    for name, value in counts.items():
        least = 0 if name in ("prelude", "coda") else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} = {value!r} must be a whole number of at least {least}")
    shared = depth - prelude - coda
    if shared < 1:
        raise InputError(
            f"depth {depth} leaves no block for the loop beside {prelude} prelude and {coda} coda "
            "blocks"
        )
    if shared % recurrences:
        fitting = [r for r in range(1, shared + 1) if shared % r == 0]
        raise InputError(
            f"recurrences = {recurrences} does not divide the {shared} shared blocks of depth "
            f"{depth} ({prelude} prelude + {coda} coda); use one of {fitting}"
        )
    return shared // recurrences


def check_untied(recurrences: int, backprop_last: int | None) -> None:
    """Raise InputError for a graph whose passes can't have weights of their own."""
    if recurrences == 1:
        raise InputError("untied gives every pass its own blocks; recurrences = 1 has one pass")
    if backprop_last is not None and backprop_last < recurrences:
        raise InputError(
            f"untied with backprop_last = {backprop_last} of {recurrences} passes would leave the "
            "first passes' blocks without gradient; the control of a truncated recipe is the "
            "untied one with gradient through all passes"
        )


def injection_params(injection: Injection, *, width: int, recurrences: int, lanes: int = 2) -> int:
    """Parameters of the injection; for hyperconnections (N² + 2N) scalars per step."""
    if injection not in get_args(Injection):
        raise InputError(f"injection {injection!r} is not one of {', '.join(get_args(Injection))}")
    if isinstance(lanes, bool) or not isinstance(lanes, int) or lanes < 1:
        raise InputError(f"lanes = {lanes!r} must be a whole number of at least 1")
    if recurrences == 1:
        return 0
    if injection == "linear":
        return 2 * width**2
    if injection == "hyperconnections":
        return recurrences * (lanes**2 + 2 * lanes)
    return 0


def account(
    *,
    width: int,
    recurrences: int,
    depth: int = 20,
    injection: Injection = "linear",
    lanes: int = 2,
    backprop_last: int | None = None,
    vocab: int = 32064,
    sequence_length: int = 2048,
    prelude: int = 2,
    coda: int = 2,
    untied: bool = False,
) -> Account:
    """Parameters and training FLOPs per token of one looped architecture.

    Parameters
    ----------
    width: model width d.
    recurrences: passes r through the recurrent block. At r = 1 the model is `depth` unlike blocks
        without injection; `prelude + coda` of them count as `n_once`, so that
        `n_once + n_rec` is the whole model.
    depth: effective depth, prelude + r · recurrent + coda blocks.
    injection, lanes: how the prelude's output enters each pass; lanes of hyperconnections.
    backprop_last: passes that carry gradient (None: all).
    untied: every pass has blocks of its own, r times as many parameters in `n_rec`; injection and
        norms are shared by the passes, and FLOPs those of the tied model.
    vocab: padded vocabulary V. sequence_length: tokens T in a row.

    FLOPs per token, with b = 12d² + 2d, k = backprop_last, I the injection's share
    (2d² linear, (N² + 2N)·d lanes, else 0), from the released code of arXiv 2604.21106:

        6(n_pc·b + V·d) + (2(r−k) + 6k)(n_rec·b + I) + 12·n_pc·d·T + (4(r−k) + 12k)·n_rec·d·T

    Raises InputError for counts that aren't whole and positive, a depth that r can't split, or an
    unknown injection.
    """
    sizes = {"width": width, "vocab": vocab, "sequence_length": sequence_length}
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} = {value!r} must be a whole number of at least 1")
        if value > LARGEST:
            raise InputError(f"{name} = {value:.3g} is more than the {LARGEST:.0e} of any model")
    if backprop_last is not None and not 1 <= backprop_last <= recurrences:
        raise InputError(
            f"backprop_last = {backprop_last} must lie between 1 and recurrences = {recurrences}"
        )
    if untied:
        check_untied(recurrences, backprop_last)
    loop_blocks = split_depth(depth=depth, recurrences=recurrences, prelude=prelude, coda=coda)
    n_inject = injection_params(injection, width=width, recurrences=recurrences, lanes=lanes)
    block = block_params(width)
    once_blocks = prelude + coda

    kept = recurrences if backprop_last is None else backprop_last
    matrix = 2 * (recurrences - kept) + 6 * kept
    attention = 4 * (recurrences - kept) + 12 * kept
    # One pass through the lanes costs (N² + 2N)·d however many steps hold scalars of their own.
    inject = n_inject // recurrences * width if injection == "hyperconnections" else n_inject
    flops = (
        6 * (once_blocks * block + vocab * width)
        + matrix * (loop_blocks * block + inject)
        + 12 * once_blocks * width * sequence_length
        + attention * loop_blocks * width * sequence_length
    )
    n_once = once_blocks * block + LOOP_NORMS * width
    n_rec = loop_blocks * block * (recurrences if untied else 1)
    return Account(
        n_once=n_once,
        n_rec=n_rec,
        n_inject=n_inject,
        n_total=n_once + n_rec + n_inject,
        n_embedding=2 * vocab * width,
        flops_per_token=flops,
    )

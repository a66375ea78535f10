"""Text from a looped model, a token at a time, with a key-value cache."""

from collections.abc import Sequence

import torch

from isodepth.errors import InputError
from isodepth.model.cache import KeyValueCache
from isodepth.model.head import capped_logits
from isodepth.model.looped import LoopedModel


@torch.inference_mode()
def generate(
    model: LoopedModel,
    prompt_ids: Sequence[int],
    *,
    max_new: int,
    temperature: float,
    seed: int,
    kv_passes: int | None = None,
    recurrences: int | None = None,
    stop_id: int | None = None,
) -> list[int]:
    """Up to `max_new` tokens that go on from `prompt_ids`; the prompt is not repeated.

    Parameters
    ----------
    temperature: logits are divided by it before sampling; 0 takes the likeliest token.
    seed: of the sampling; the same seed gives the same text on the same machine.
    kv_passes: passes whose keys and values are kept per token (m of r); None keeps all, and then
        the logits are the uncached model's.
    recurrences: passes to run, where they should differ from training's.
    stop_id: end after this token, which is included.

    Raises InputError for an empty prompt, ids outside the vocabulary, a negative temperature,
    more tokens than a row holds, or passes that the model can't run or keep.
    """
    config = model.config
    passes = config.recurrences if recurrences is None else recurrences
    _check(prompt_ids, max_new, temperature, config.vocab, config.sequence_length)
    cache = KeyValueCache(
        config,
        length=len(prompt_ids) + max_new,
        recurrences=passes,
        kv_passes=kv_passes,
        device=model.embedding.device,
        dtype=model.embedding.dtype,
    )
    sampler = torch.Generator().manual_seed(seed)
    fresh = list(prompt_ids)
    seen = 0
    new: list[int] = []
    while len(new) < max_new:
        tokens = torch.tensor([fresh], device=model.embedding.device)
        hidden = model.hidden(tokens, recurrences=passes, start=seen, cache=cache)
        logits = capped_logits(hidden[0, -1], model.head, vocab=config.vocab).cpu()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            odds = torch.softmax(logits.double() / temperature, dim=-1)
            token = int(torch.multinomial(odds, 1, generator=sampler))
        seen += len(fresh)
        fresh = [token]
        new.append(token)
        if token == stop_id:
            break
    return new


def _check(
    prompt_ids: Sequence[int], max_new: int, temperature: float, vocab: int, length: int
) -> None:
    problems = []
    if not prompt_ids:
        problems.append("the prompt is empty; generation starts from at least one token")
    outside = [token for token in prompt_ids if not 0 <= token < vocab]
    if outside:
        problems.append(f"prompt ids {outside[:5]} lie outside the vocabulary of {vocab}")
    if max_new < 1:
        problems.append(f"max_new = {max_new} must be at least 1")
    if not temperature >= 0:
        problems.append(f"temperature = {temperature} must be 0 or more")
    if len(prompt_ids) + max_new > length:
        problems.append(
            f"{len(prompt_ids)} prompt tokens and {max_new} new ones don't fit the model's rows of "
            f"{length} tokens"
        )
    if problems:
        raise InputError(problems)

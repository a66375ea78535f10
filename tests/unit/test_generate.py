"""Generation with a cache against the model without one."""

import pytest
import torch
from reference_model import logits as reference_logits
from reference_model import weights_of

from isodepth.accounting import Injection
from isodepth.errors import InputError
from isodepth.model.cache import KeyValueCache
from isodepth.model.config import LoopedConfig
from isodepth.model.generate import generate
from isodepth.model.head import capped_logits
from isodepth.model.looped import LoopedModel

INJECTIONS: list[Injection] = ["linear", "additive", "passthrough", "hyperconnections"]
PROMPT = [3, 1, 4, 1, 5]


def model_of(injection: Injection = "linear", recurrences: int = 4) -> LoopedModel:
    model = LoopedModel(
        LoopedConfig.iso_depth(
            width=32,
            head_size=16,
            depth=10,
            prelude=1,
            coda=1,
            vocab=40,
            sequence_length=32,
            recurrences=recurrences,
            injection=injection,
        )
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def cached_logits(model: LoopedModel, tokens: list[int], prompt: int, m: int) -> torch.Tensor:
    """Logits of every token from the prompt's last on, fed one at a time after the prompt."""
    r = model.config.recurrences
    cache = KeyValueCache(
        model.config, length=len(tokens), recurrences=r, kv_passes=m, dtype=torch.float64
    )
    pieces = [tokens[:prompt]] + [[token] for token in tokens[prompt:]]
    out, start = [], 0
    with torch.no_grad():
        for piece in pieces:
            hidden = model.hidden(torch.tensor([piece]), start=start, cache=cache)
            out.append(capped_logits(hidden[0, -1], model.head, vocab=model.config.vocab))
            start += len(piece)
    return torch.stack(out)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("recurrences", [1, 2, 4])
def test_the_full_cache_gives_the_uncached_logits(injection: Injection, recurrences: int) -> None:
    model = model_of(injection, recurrences)
    tokens = [(7 * i) % 40 for i in range(20)]
    got = cached_logits(model, tokens, prompt=5, m=recurrences)
    with torch.no_grad():
        whole = model(torch.tensor([tokens]))[0, 4:]
    # The tables of cos and sin are fp32, whatever the model is.
    torch.testing.assert_close(got, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_keeping_the_last_m_passes_follows_its_definition(m: int) -> None:
    """A prompt of one token and then another: pass t of the second attends to the latest pass of
    the first that shares t's slot. Checked against a full cache that is rearranged by hand.
    """
    model = model_of("linear", 4)
    tokens = torch.tensor([[3, 1]])
    full = KeyValueCache(model.config, length=2, recurrences=4, dtype=torch.float64)
    with torch.no_grad():
        model.hidden(tokens[:, :1], start=0, cache=full)
        for step in range(4):
            latest = max(t for t in range(4) if t % m == step % m)
            for mine, kept in zip(full.recurrent(step), full.recurrent(latest), strict=True):
                mine.keys.copy_(kept.keys)
                mine.values.copy_(kept.values)
        by_hand = model.hidden(tokens[:, 1:], start=1, cache=full)
    expected = capped_logits(by_hand[0, -1], model.head, vocab=model.config.vocab)
    got = cached_logits(model, [3, 1], prompt=1, m=m)[-1]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(got, cached_logits(model, [3, 1], prompt=1, m=4)[-1], atol=1e-6)


def test_a_smaller_cache_is_smaller() -> None:
    config = model_of().config
    whole, two = (
        KeyValueCache(config, length=10, recurrences=4, kv_passes=m).bytes() for m in (None, 2)
    )
    per_block = 2 * 10 * 32 * 4
    assert whole == (2 + 4 * 2) * per_block
    assert two == (2 + 2 * 2) * per_block


@pytest.mark.parametrize("injection", INJECTIONS)
def test_greedy_text_is_the_uncached_models(injection: Injection) -> None:
    model = model_of(injection)
    text = list(PROMPT)
    weights = weights_of(model.state_dict())
    for _ in range(15):
        logits = reference_logits(weights, model.config, torch.tensor([text]))
        text.append(int(logits[0, -1].argmax()))
    got = generate(model, PROMPT, max_new=15, temperature=0, seed=0)
    assert PROMPT + got == text


def test_sampling_follows_the_seed_and_the_temperature() -> None:
    model = model_of()
    draws = [
        generate(model, PROMPT, max_new=20, temperature=t, seed=s)
        for t, s in [(1.0, 0), (1.0, 0), (1.0, 1), (1e-6, 2), (0, 3)]
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert draws[3] == draws[4]


def test_sampling_draws_from_the_softmax() -> None:
    """First tokens over many seeds against the odds of the model's own logits, by chi-square."""
    model = model_of("linear", 1)
    with torch.no_grad():
        odds = torch.softmax(model(torch.tensor([PROMPT]))[0, -1] / 2, dim=-1)
    draws = [generate(model, PROMPT, max_new=1, temperature=2, seed=s)[0] for s in range(500)]
    seen = torch.bincount(torch.tensor(draws), minlength=40).double()
    chi2 = ((seen - 500 * odds) ** 2 / (500 * odds)).sum().item()
    assert chi2 < 39 + 6 * (2 * 39) ** 0.5


def test_padding_is_never_sampled() -> None:
    model = model_of()
    with torch.no_grad():
        model.head[40:] = 1e3 * model.head[:1]
    for temperature in (0, 1, 1e9):
        text = generate(model, PROMPT, max_new=20, temperature=temperature, seed=0)
        assert max(text) < 40


def test_it_stops_after_the_stop_token() -> None:
    model = model_of()
    text = generate(model, PROMPT, max_new=20, temperature=1, seed=0)
    stop = text[6]
    cut = generate(model, PROMPT, max_new=20, temperature=1, seed=0, stop_id=stop)
    assert cut == text[: text.index(stop) + 1]


def test_other_recurrences_than_trained() -> None:
    model = model_of("additive")
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT]), recurrences=6)[0, -1]
    assert generate(model, PROMPT, max_new=1, temperature=0, seed=0, recurrences=6) == [
        int(logits.argmax())
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_ids": []}, "empty"),
        ({"prompt_ids": [1, 40]}, r"\[40\] lie outside the vocabulary of 40"),
        ({"prompt_ids": [-1]}, "outside the vocabulary"),
        ({"max_new": 0}, "max_new = 0"),
        ({"max_new": 28}, "rows of 32 tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"kv_passes": 5}, "kv_passes = 5"),
        ({"kv_passes": 0}, "kv_passes = 0"),
        ({"recurrences": 0}, "recurrences = 0"),
    ],
)
def test_bad_requests_are_refused(change: dict[str, object], message: str) -> None:
    good = {"prompt_ids": PROMPT, "max_new": 5, "temperature": 1.0, "seed": 0}
    with pytest.raises(InputError, match=message):
        generate(model_of(), **(good | change))  # type: ignore[arg-type]

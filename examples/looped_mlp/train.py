"""A looped model that isn't isodepth's own: an MLP over the last 16 characters, in numpy.

    python train.py --width 32 --recurrences 4 --flops 1e10 --seed 0 --out DIR

The characters, 16 numbers each, go through one matrix into a vector h of `width` numbers. Then come
8 layers h ← h + relu(norm(h)·U)·V, of which 8/r are different: those are passed r times. A last
matrix gives the odds of the next character. The text is Python's own manual, from its standard
library. The run's row of the run table is left in DIR/record.json.
"""

import argparse
import json
import math
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

DEPTH = 8  # layers that a character's vector goes through, whatever r is
CONTEXT, EMBEDDING, VOCABULARY = 16, 16, 128  # characters seen, numbers a character, ASCII
BATCH = 64  # characters predicted in a step
LEARNING_RATE = 0.004  # of Adam, falling linearly to a tenth


def text():
    """The training and the validation part, as character codes."""
    whole = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore")
    codes = np.frombuffer(whole, dtype=np.uint8).astype(np.int64)
    cut = len(codes) * 19 // 20
    return codes[:cut], codes[cut:]


def initial(width, recurrences, rng):
    """Random weights by name: the embedding E, W into the loop, U and V of each layer, head O."""
    shapes = {"E": (VOCABULARY, EMBEDDING), "W": (CONTEXT * EMBEDDING, width)}
    for layer in range(DEPTH // recurrences):
        shapes |= {f"U{layer}": (width, 2 * width), f"V{layer}": (2 * width, width)}
    shapes["O"] = (width, VOCABULARY)
    weights = {
        n: rng.normal(size=s).astype(np.float32) / math.sqrt(s[0]) for n, s in shapes.items()
    }
    weights["E"] *= math.sqrt(VOCABULARY)
    return weights


def norm(h):
    """h at a root mean square of 1, and what it was divided by."""
    scale = np.sqrt((h * h).mean(axis=1, keepdims=True) + 1e-6)
    return h / scale, scale


def norm_gradient(dy, y, scale):
    return (dy - y * (dy * y).mean(axis=1, keepdims=True)) / scale


def loss_and_gradients(weights, recurrences, seen, following):
    """Mean cross-entropy in nats, and its gradient by every weight."""
    batch = len(seen)
    layers = list(range(DEPTH // recurrences)) * recurrences
    x = weights["E"][seen].reshape(batch, -1)
    h = x @ weights["W"]
    kept = []
    for layer in layers:
        y, scale = norm(h)
        hidden = np.maximum(y @ weights[f"U{layer}"], 0)
        h = h + hidden @ weights[f"V{layer}"]
        kept.append((y, scale, hidden))
    y, scale = norm(h)
    logits = y @ weights["O"]
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    total = odds.sum(axis=1)
    rows = np.arange(batch)
    loss = float((np.log(total) - logits[rows, following]).mean())

    gradients = {name: np.zeros_like(w) for name, w in weights.items()}
    dlogits = odds / total[:, None]
    dlogits[rows, following] -= 1
    dlogits /= batch
    gradients["O"] = y.T @ dlogits
    dh = norm_gradient(dlogits @ weights["O"].T, y, scale)
    for layer, (y, scale, hidden) in zip(reversed(layers), reversed(kept), strict=True):
        u, v = f"U{layer}", f"V{layer}"
        gradients[v] += hidden.T @ dh
        dhidden = (dh @ weights[v].T) * (hidden > 0)
        gradients[u] += y.T @ dhidden
        dh = dh + norm_gradient(dhidden @ weights[u].T, y, scale)
    gradients["W"] = x.T @ dh
    dx = (dh @ weights["W"].T).reshape(-1, EMBEDDING)
    np.add.at(gradients["E"], seen.reshape(-1), dx)
    return loss, gradients


def count(width, recurrences):
    """Parameters as the run table wants them, without embedding and head, and FLOPs a character."""
    layers = DEPTH // recurrences * 4 * width**2
    into = CONTEXT * EMBEDDING * width
    applied = into + DEPTH * 4 * width**2 + width * VOCABULARY
    return {
        "n_once": into + (layers if recurrences == 1 else 0),
        "n_rec": 0 if recurrences == 1 else layers,
        "flops_per_token": 6 * applied,  # 2 forward, 4 backward
    }


def train(width, recurrences, flops, seed):
    """Train on as many characters as `flops` pay for; the row of the run table."""
    counts = count(width, recurrences)
    steps = max(1, round(flops / counts["flops_per_token"] / BATCH))
    rng = np.random.default_rng(seed)
    weights = initial(width, recurrences, rng)
    moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in weights.items()}
    codes, held_out = text()

    def batch(part, at):
        """The characters before each place of a part, and those at it."""
        return part[at[:, None] + np.arange(-CONTEXT, 0)], part[at]

    for step in range(1, steps + 1):
        at = rng.integers(CONTEXT, len(codes), size=BATCH)
        _, gradients = loss_and_gradients(weights, recurrences, *batch(codes, at))
        rate = LEARNING_RATE * (1 - 0.9 * step / steps)
        for name, gradient in gradients.items():
            mean, square = moments[name]
            mean += 0.1 * (gradient - mean)
            square += 0.01 * (gradient**2 - square)
            unbiased = mean / (1 - 0.9**step)
            weights[name] -= rate * unbiased / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    at = np.arange(CONTEXT, len(held_out))
    loss, _ = loss_and_gradients(weights, recurrences, *batch(held_out, at))
    tokens = steps * BATCH
    return counts | {
        "recurrences": recurrences,
        "width": width,
        "seed": seed,
        "tokens": tokens,
        "flops": tokens * counts["flops_per_token"],
        "loss": loss,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--recurrences", type=int, required=True)
    parser.add_argument("--flops", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if DEPTH % args.recurrences:
        parser.error(f"--recurrences must divide {DEPTH}")
    row = train(args.width, args.recurrences, args.flops, args.seed)
    (args.out / "record.json").write_text(json.dumps({"run": row}))
    print(f"loss {row['loss']:.4f} after {row['tokens']} characters")


if __name__ == "__main__":
    main()

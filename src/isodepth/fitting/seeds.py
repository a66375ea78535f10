"""Where fits start: variable projection over a dense grid of exponents.

Given its exponents a law is linear in the rest, with coefficients that can't be negative. So each
grid point's coefficients are solved for exactly (every subset of non-zero ones, keeping the best
that is non-negative) and only the exponents are searched.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from isodepth.fitting.problem import Problem
from isodepth.fitting.solver import objective
from isodepth.laws import Array

N_STARTS = 64
_EXPONENTS = np.geomspace(0.03, 1.6, 14)
_PHIS = np.array([-0.5, -0.1, 0.2, 0.45, 0.7, 1.0, 1.4])
_GAMMAS = np.array([0.35, 0.6, 0.85, 1.2, 1.8, 3.0])
_FLOORS = np.array([0.0, 0.3, 0.5, 0.65, 0.8, 0.9, 0.97])  # E as a share of the lowest loss
_SMALL = 1e-6  # stands in for a coefficient of zero, whose logarithm has none


def seeds(problem: Problem, count: int = N_STARTS) -> Array:
    """The most promising `count` θ (K, p) of the grid, best first by the problem's objective."""
    build = {"additive": _additive, "coupled": _coupled}[problem.law.name]
    grid = build(problem)
    if problem.law.arms_differ != "none":  # from arms that differ in nothing
        grid = np.insert(grid, len(problem.law.shape) - 1, 0.0, axis=1)
    values = objective(problem.batch(), grid)
    order = np.argsort(np.where(np.isfinite(values), values, np.inf))
    # the head of the order alone would be one valley's neighbours: half the starts are spread out
    head = order[: count // 2]
    rest = order[count // 2 : max(count, len(order) // 2)]
    spread = rest[np.linspace(0, len(rest) - 1, count - len(head)).astype(int)]
    return grid[np.concatenate([head, spread])]


def _etas(problem: Problem) -> Array:
    """Starting multiplicities (G, q): r^φ for a grid of φ, whatever the columns z are."""
    if not problem.eta_names:
        return np.empty((1, 0))
    log_r = np.log(problem.frame["recurrences"].to_numpy(dtype=float))
    phi_is_one = np.linalg.lstsq(problem.design.z.T, log_r, rcond=None)[0]
    return _PHIS[:, None] * phi_is_one


def _powers(problem: Problem) -> tuple[Array, Array, Array]:
    """Etas (G, q), (N_eff/N₀)^−α (G, S, n) and (D/D₀)^−β (S, n) over the grid."""
    etas = _etas(problem)
    log_n = problem.design.effective(etas)[0]
    log_n = np.broadcast_to(log_n, (len(etas), problem.n))
    log_d = problem.design.log_tokens - problem.design.log_d0
    size = np.exp(-_EXPONENTS[None, :, None] * log_n[:, None, :])
    data = np.exp(-_EXPONENTS[:, None] * log_d)
    return etas, size, data


def _additive(problem: Problem) -> Array:
    """Grid over (φ, α, β); E, A, B by non-negative least squares of relative residuals."""
    etas, size, data = _powers(problem)
    weight = problem.scale**2 * np.exp(-2.0 * problem.log_loss)
    loss = np.exp(problem.log_loss)
    g, s = len(etas), len(_EXPONENTS)
    gram = np.empty((g, s, s, 3, 3))
    right = np.empty((g, s, s, 3))
    gram[..., 0, 0] = weight.sum()
    gram[..., 0, 1] = (size @ weight)[:, :, None]
    gram[..., 0, 2] = (data @ weight)[None, None, :]
    gram[..., 1, 1] = ((size**2) @ weight)[:, :, None]
    gram[..., 1, 2] = np.matmul(size * weight, data.T)
    gram[..., 2, 2] = ((data**2) @ weight)[None, None, :]
    for i, j in ((1, 0), (2, 0), (2, 1)):
        gram[..., i, j] = gram[..., j, i]
    right[..., 0] = weight @ loss
    right[..., 1] = (size @ (weight * loss))[:, :, None]
    right[..., 2] = (data @ (weight * loss))[None, None, :]
    solved = non_negative(gram, right).reshape(-1, 3)
    log_a, log_b = np.log(solved[:, 1:] + _SMALL).T
    alpha, beta = np.meshgrid(_EXPONENTS, _EXPONENTS, indexing="ij")
    shape = np.stack(
        [
            solved[:, 0],
            log_a,
            np.tile(alpha.ravel(), g),
            log_b,
            np.tile(beta.ravel(), g),
        ],
        axis=1,
    )
    return np.concatenate([shape, np.repeat(etas, s * s, axis=0)], axis=1)


def _coupled(problem: Problem) -> Array:
    """Grid over (E, γ, φ, α, β): (L − E)^(1/γ) is linear in A and B."""
    etas, size, data = _powers(problem)
    size, data, exponents = size[:, ::2], data[::2], _EXPONENTS[::2]
    loss = np.exp(problem.log_loss)
    g, s = len(etas), len(exponents)
    alpha, beta = np.meshgrid(exponents, exponents, indexing="ij")
    found = []
    for floor in _FLOORS * loss.min():
        for gamma in _GAMMAS:
            target = (loss - floor) ** (1.0 / gamma)
            weight = problem.scale**2 * (gamma * (loss - floor) / (loss * target)) ** 2
            gram = np.empty((g, s, s, 2, 2))
            gram[..., 0, 0] = ((size**2) @ weight)[:, :, None]
            gram[..., 1, 1] = ((data**2) @ weight)[None, None, :]
            gram[..., 0, 1] = gram[..., 1, 0] = np.matmul(size * weight, data.T)
            right = np.empty((g, s, s, 2))
            right[..., 0] = (size @ (weight * target))[:, :, None]
            right[..., 1] = (data @ (weight * target))[None, None, :]
            solved = np.log(non_negative(gram, right) + _SMALL).reshape(-1, 2)
            # θ holds the terms' logarithms times γ
            shape = np.stack(
                [
                    np.full(len(solved), floor),
                    gamma * solved[:, 0],
                    gamma * np.tile(alpha.ravel(), g),
                    gamma * solved[:, 1],
                    gamma * np.tile(beta.ravel(), g),
                    np.full(len(solved), np.log(gamma)),
                ],
                axis=1,
            )
            found.append(np.concatenate([shape, np.repeat(etas, s * s, axis=0)], axis=1))
    return np.concatenate(found)


def non_negative(gram: Array, right: Array) -> Array:
    """argmin ½xᵀGx − bᵀx over x ≥ 0 for stacks G (…, m, m), b (…, m), exact for small m.

    The optimum solves the normal equations of its own support, so every support is tried.
    """
    m = right.shape[-1]
    best = np.zeros_like(right)
    lowest = np.zeros(right.shape[:-1])
    for size in range(1, m + 1):
        for support in combinations(range(m), size):
            rows = np.array(support)
            sub = gram[..., rows[:, None], rows]
            b = right[..., rows]
            diagonal = np.einsum("...ii->...i", sub)
            ridge = sub + 1e-13 * diagonal[..., None] * np.eye(size)
            x = np.linalg.solve(ridge, b[..., None])[..., 0]
            value = -0.5 * np.einsum("...i,...i->...", b, x)
            take = (x >= 0).all(axis=-1) & (value < lowest)
            candidate = np.zeros_like(right)
            candidate[..., rows] = x
            best = np.where(take[..., None], candidate, best)
            lowest = np.where(take, value, lowest)
    return best

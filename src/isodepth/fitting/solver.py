"""Batched Levenberg–Newton: many fits of one law advance together as arrays.

Objective of problem k, summed over runs i (Besiroglu et al. 2404.10102: a mean stops optimisers
early):

    F_k = Σᵢ w_ki · ρ_δ(sᵢ·(log L̂ᵢ(θ_k) − y_ki)),   ρ_δ Huber's; δ = ∞ is least squares.

Steps solve (H + λ·M) d = −g with H the exact Hessian and M = Jᵀ·diag(w·min(1, δ/|r|))·J, the
curvature of the quadratic that lies above Huber's loss. λ → 0 is Newton's method; a large λ is a
short, safe step in the right metric however small δ is against the noise.
"""

from dataclasses import dataclass

import numpy as np

from isodepth.laws import Array, Bools, Design, Law

_CHUNK_CELLS = 16_384  # problems × runs advanced at once: what stays in a core's cache
MAX_STEPS = 400
_TOLERANCE = 1e-10  # predicted relative decrease of the objective at which a problem is done


@dataclass(frozen=True, kw_only=True)
class Batch:
    """K fits of one law over the same runs, in any of which data, weights and starts may differ."""

    law: Law
    design: Design
    log_loss: Array  # (n,) or (K, n): y
    scale: Array  # (n,) residual multipliers s: inverse relative noise
    delta: float  # Huber's threshold on scaled log-loss residuals; inf: least squares
    bounds: Array  # (2, p) lowest and highest θ


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Where each of the K fits ended."""

    theta: Array  # (K, p)
    objective: Array  # (K,) summed Huber (or half squared) loss
    gradient_norm: Array  # (K,) ‖∇F‖₂ over the parameters that are not on a bound
    converged: Bools  # (K,)
    steps: int


def minimise(
    batch: Batch,
    start: Array,
    weights: Array | None = None,
    fixed: Bools | None = None,
    max_steps: int = MAX_STEPS,
) -> Solution:
    """Minimise every problem from `start` (K, p).

    weights: (n,) or (K, n), w ≥ 0 (bootstrap counts, left-out runs); None: ones.
    fixed: (p,) bool, parameters held at their start.
    max_steps: after how many steps a problem is given up as not converged.
    """
    start = np.atleast_2d(np.asarray(start, dtype=float))
    n_problems, n_runs = start.shape[0], batch.design.log_tokens.size
    hold = np.zeros(start.shape[1], dtype=bool) if fixed is None else np.asarray(fixed, dtype=bool)
    w = np.ones((1, n_runs)) if weights is None else np.atleast_2d(weights)
    y = np.atleast_2d(batch.log_loss)
    size = max(1, _CHUNK_CELLS // n_runs)
    parts = [
        _chunk(batch, start[i : i + size], _rows(w, i, size), _rows(y, i, size), hold, max_steps)
        for i in range(0, n_problems, size)
    ]
    return Solution(
        theta=np.concatenate([p.theta for p in parts]),
        objective=np.concatenate([p.objective for p in parts]),
        gradient_norm=np.concatenate([p.gradient_norm for p in parts]),
        converged=np.concatenate([p.converged for p in parts]),
        steps=max(p.steps for p in parts),
    )


def objective(batch: Batch, theta: Array, weights: Array | None = None) -> Array:
    """F at theta (K, p) → (K,)."""
    theta = np.atleast_2d(theta)
    n_runs = batch.design.log_tokens.size
    w = np.ones((1, n_runs)) if weights is None else np.atleast_2d(weights)
    y = np.atleast_2d(batch.log_loss)
    size = max(1, _CHUNK_CELLS // n_runs)
    parts = []
    for i in range(0, len(theta), size):
        log_loss = batch.law.log_loss(theta[i : i + size], batch.design)
        residual = batch.scale * (log_loss - _rows(y, i, size))
        parts.append(huber(residual, batch.delta, _rows(w, i, size)))
    return np.concatenate(parts)


def _rows(a: Array, start: int, size: int) -> Array:
    return a if a.shape[0] == 1 else a[start : start + size]


def huber(residual: Array, delta: float, w: Array | None = None) -> Array:
    """Σᵢ wᵢ·ρ_δ(residualᵢ) of residuals (K, n) → (K,); w (n,) or (K, n), None: ones."""
    w = np.ones((1, residual.shape[1])) if w is None else w
    if np.isinf(delta):
        return 0.5 * np.einsum(
            "kn,kn,kn->k", residual, residual, np.broadcast_to(w, residual.shape)
        )
    size = np.abs(residual)
    inner = np.minimum(size, delta)
    return np.einsum("kn,kn->k", np.broadcast_to(w, size.shape), inner * (size - 0.5 * inner))


@dataclass(frozen=True, kw_only=True)
class _Local:
    """The quadratic picture of each problem at its θ."""

    value: Array  # (K,)
    gradient: Array  # (K, p)
    hessian: Array  # (K, p, p)
    metric: Array  # (K, p, p)


def _local(batch: Batch, theta: Array, w: Array, y: Array) -> _Local:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        at = batch.law.evaluate(theta, batch.design)
        r = batch.scale * (at.log_loss - y)
        size = np.abs(r)
        value = huber(r, batch.delta, w)
        if np.isinf(batch.delta):
            pull, inside, above = w * r, np.broadcast_to(w, r.shape), np.broadcast_to(w, r.shape)
        else:
            pull = w * np.clip(r, -batch.delta, batch.delta)
            inside = w * (size <= batch.delta)
            above = w * (batch.delta / np.maximum(size, batch.delta))
        pull = pull * batch.scale
        s2 = batch.scale**2
        jac_t = at.jacobian.swapaxes(1, 2)
        gradient = np.matmul(at.jacobian, pull[:, :, None])[:, :, 0]
        hessian = np.matmul(at.jacobian * (inside * s2 - pull)[:, None], jac_t)
        hessian += at.curvature(pull)
        metric = np.matmul(at.jacobian * (above * s2)[:, None], jac_t)
    return _Local(value=value, gradient=gradient, hessian=hessian, metric=metric)


def _chunk(batch: Batch, start: Array, w: Array, y: Array, hold: Bools, max_steps: int) -> Solution:
    lowest, highest = batch.bounds
    k_all = len(start)
    theta = np.clip(start, lowest, highest)
    theta[:, hold] = start[:, hold]
    live = np.arange(k_all)
    at = _local(batch, theta, w, y)
    damping = np.full(k_all, 1e-2)
    converged = np.zeros(k_all, dtype=bool)
    gradient_norm = np.full(k_all, np.inf)
    out_value = at.value.copy()
    out_theta = theta.copy()
    steps = 0
    while live.size and steps < max_steps:
        steps += 1
        stuck = (
            hold
            | ((theta <= lowest) & (at.gradient > 0))
            | ((theta >= highest) & (at.gradient < 0))
        )
        step, drop = _step(at, damping, stuck)
        moved = np.clip(theta + step, lowest, highest)
        moved[:, hold] = theta[:, hold]
        done = (drop >= 0) & (drop <= _TOLERANCE * at.value + 1e-24)
        trial = _local(batch, moved, w, y)
        better = (trial.value < at.value) & np.isfinite(trial.gradient).all(axis=1) & (drop > 0)
        gain = (at.value - trial.value) / np.where(drop > 0, drop, 1.0)
        damping = np.where(
            better,
            damping * np.where(gain > 0.75, 0.3, np.where(gain > 0.25, 1.0, 2.0)),
            np.maximum(damping, 1e-6) * 6.0,
        )
        theta = np.where(better[:, None], moved, theta)
        at = _Local(
            value=np.where(better, trial.value, at.value),
            gradient=np.where(better[:, None], trial.gradient, at.gradient),
            hessian=np.where(better[:, None, None], trial.hessian, at.hessian),
            metric=np.where(better[:, None, None], trial.metric, at.metric),
        )
        out_theta[live], out_value[live] = theta, at.value
        converged[live] = done
        gradient_norm[live] = np.linalg.norm(np.where(stuck, 0.0, at.gradient), axis=1)
        keep = ~done & (damping < 1e12)
        if not keep.all():
            live, theta, damping = live[keep], theta[keep], damping[keep]
            w = w if w.shape[0] == 1 else w[keep]
            y = y if y.shape[0] == 1 else y[keep]
            at = _Local(
                value=at.value[keep],
                gradient=at.gradient[keep],
                hessian=at.hessian[keep],
                metric=at.metric[keep],
            )
    return Solution(
        theta=out_theta,
        objective=out_value,
        gradient_norm=gradient_norm,
        converged=converged,
        steps=steps,
    )


def _step(at: _Local, damping: Array, stuck: Bools) -> tuple[Array, Array]:
    """The damped Newton step and the decrease that its quadratic predicts (≤ 0: not descent)."""
    p = at.gradient.shape[1]
    free = ~stuck
    pair = free[:, :, None] & free[:, None, :]
    g = np.where(free, at.gradient, 0.0)
    # a ridge in the metric's own units keeps directions that no run constrains from blowing up
    ridge = np.einsum("kpp->kp", at.metric) * 1e-13 + 1e-30
    system = at.hessian + damping[:, None, None] * at.metric
    diagonal = np.arange(p)
    system[:, diagonal, diagonal] += ridge
    system = np.where(pair, system, 0.0)
    system[:, diagonal, diagonal] += np.where(stuck, 1.0, 0.0)
    step: Array
    try:
        step = np.asarray(-np.linalg.solve(system, g[:, :, None])[:, :, 0], dtype=np.float64)
    except np.linalg.LinAlgError:
        step = np.array([-np.linalg.pinv(a) @ b for a, b in zip(system, g, strict=True)])
    step = np.where(np.isfinite(step), step, 0.0)
    downhill = -np.einsum("kp,kp->k", g, step)
    quadratic = np.einsum("kp,kpq,kq->k", step, at.hessian, step)
    drop: Array = downhill - 0.5 * np.maximum(quadratic, -downhill)
    return step, drop

"""Loss as a function of (N_once, N_rec, r, D): the forms that isodepth fits and compares.

Every law is written in the parameters that the solver moves, θ: E itself, and the logarithms of the
two terms at reference scales N₀ and D₀ (the geometric means of the runs), which keeps log A and α
apart. `Law.raw` turns θ into the coefficients that people publish (raw parameters and tokens).

Effective parameters (arXiv 2604.21106, eq. for L): N_eff = N_once + m(r)·N_rec. A multiplicity is
linear in its parameters η: log m(r) = z(r)·η, with z(r) = log r for r^φ, and an indicator of each
r > 1 where every r has an m of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
LawName = Literal["additive", "coupled"]
MultiplicityName = Literal["power", "free"]


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a law sees of n runs."""

    n_once: Array  # (n,) parameters used once per token
    n_rec: Array  # (n,) parameters of the shared block
    z: Array  # (q, n) multiplicity columns: log m = zᵀη
    log_tokens: Array  # (n,) log D
    log_n0: float  # log of the reference size N₀, parameters
    log_d0: float  # log of the reference token count D₀

    def effective(self, eta: Array) -> tuple[Array, Array]:
        """log(N_eff / N₀) and the loop's share of N_eff; eta (K, q) gives (K, n), else (1, n)."""
        multiplicity = np.exp(eta @ self.z) if len(self.z) else np.ones((1, 1))
        looped = self.n_rec * multiplicity
        total = self.n_once + looped
        return np.log(total) - self.log_n0, looped / total


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A law at K parameter vectors and n runs."""

    log_loss: Array  # (K, n)
    jacobian: Array  # (K, p, n), of log_loss
    # c (K, n) → (K, p, p): Σᵢ cᵢ ∇²log_lossᵢ without its −Σᵢ cᵢ JᵢJᵢᵀ, which callers fold in
    curvature: Callable[[Array], Array]


class Multiplicity(Protocol):
    """m(r): how many unlooped copies r passes are worth."""

    @property
    def name(self) -> MultiplicityName: ...

    def columns(self, recurrences: Array) -> Array:
        """z (q, n) with log m = zᵀη."""
        ...

    def names(self, recurrences: Array) -> tuple[str, ...]:
        """Names of the q parameters η."""
        ...


@dataclass(frozen=True)
class Power:
    """m(r) = r^φ (arXiv 2604.21106)."""

    name: MultiplicityName = "power"

    def columns(self, recurrences: Array) -> Array:
        if np.all(recurrences == 1):
            return np.empty((0, recurrences.size))
        return np.log(recurrences)[None, :]

    def names(self, recurrences: Array) -> tuple[str, ...]:
        return () if np.all(recurrences == 1) else ("phi",)


@dataclass(frozen=True)
class Free:
    """An m of its own for every r > 1: no assumed form."""

    name: MultiplicityName = "free"

    def columns(self, recurrences: Array) -> Array:
        return np.array([recurrences == r for r in _looped(recurrences)], dtype=float).reshape(
            -1, recurrences.size
        )

    def names(self, recurrences: Array) -> tuple[str, ...]:
        return tuple(f"log_m{r:g}" for r in _looped(recurrences))


def _looped(recurrences: Array) -> list[float]:
    return [float(r) for r in np.unique(recurrences) if r > 1]


class Law(Protocol):
    """A loss law. To add one: this class, an entry in `LAWS`, and a seeding in `fitting/seeds.py`.

    θ is (shape parameters, η). `bounds` gives each shape parameter's (lowest, highest) value;
    a fit that ends on one is reported as not identified there.
    """

    @property
    def name(self) -> LawName: ...

    @property
    def formula(self) -> str: ...

    @property
    def shape(self) -> tuple[str, ...]: ...

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]: ...

    def log_loss(self, theta: Array, design: Design) -> Array:
        """Log loss (K, n) at theta (K, p)."""
        ...

    def evaluate(self, theta: Array, design: Design) -> Evaluation:
        """Log loss, its Jacobian and its curvature at theta (K, p)."""
        ...

    def raw(self, theta: Array, design: Design) -> dict[str, Array]:
        """Published coefficients at theta (K, p): E [nats], A, alpha, B, beta, …, each (K,)."""
        ...


_FLOOR = (0.0, 60.0)  # E, nats
_LOG_TERM = (-30.0, 12.0)
_EXPONENT = (0.0, 6.0)
ETA_BOUNDS = (-12.0, 12.0)


@dataclass(frozen=True)
class Additive:
    """L = E + A·N_eff^(−α) + B·D^(−β) (arXiv 2604.21106; Hoffmann et al. 2203.15556, eq. 2)."""

    name: LawName = "additive"
    formula: str = "L = E + A·(N_once + m(r)·N_rec)^(−α) + B·D^(−β)"
    shape: tuple[str, ...] = ("E", "log_A0", "alpha", "log_B0", "beta")
    bounds: tuple[tuple[float, float], ...] = (_FLOOR, _LOG_TERM, _EXPONENT, _LOG_TERM, _EXPONENT)

    def log_loss(self, theta: Array, design: Design) -> Array:
        log_size, log_data = _log_terms(theta, design, eta_from=5)
        return np.log(theta[:, 0:1] + np.exp(log_size) + np.exp(log_data))

    def evaluate(self, theta: Array, design: Design) -> Evaluation:
        terms = _Terms.of(theta, design)
        size, data = np.exp(terms.log_size), np.exp(terms.log_data)
        loss = theta[:, 0:1] + size + data
        p_size, p_data = size / loss, data / loss

        jac = np.empty((theta.shape[0], theta.shape[1], loss.shape[1]))
        jac[:, 0] = 1.0 / loss
        jac[:, terms.size_rows] = terms.d_size * p_size[:, None]
        jac[:, 3:5] = terms.d_data * p_data[:, None]

        def curvature(c: Array) -> Array:
            hess = np.zeros((theta.shape[0], theta.shape[1], theta.shape[1]))
            terms.add_size_curvature(hess, c * p_size)
            terms.add_data_curvature(hess, c * p_data)
            return hess

        return Evaluation(log_loss=np.log(loss), jacobian=jac, curvature=curvature)

    def raw(self, theta: Array, design: Design) -> dict[str, Array]:
        return _raw(theta, design)


@dataclass(frozen=True)
class Coupled:
    """L = E + (A·N_eff^(−α) + B·D^(−β))^γ: one more parameter lets N and D interact.

    γ = 1 is the additive law. A and B carry the units inside the bracket. θ holds the terms'
    logarithms multiplied by γ (γ·log A₀, γ·α, γ·log B₀, γ·β): the bracket's γ-th power is then a
    soft maximum of the two terms with γ as its temperature, and the fit's long valley is gone.
    """

    name: LawName = "coupled"
    formula: str = "L = E + (A·(N_once + m(r)·N_rec)^(−α) + B·D^(−β))^γ"
    shape: tuple[str, ...] = (
        "E",
        "gamma_log_A0",
        "gamma_alpha",
        "gamma_log_B0",
        "gamma_beta",
        "log_gamma",
    )
    bounds: tuple[tuple[float, float], ...] = (
        _FLOOR,
        _LOG_TERM,
        _EXPONENT,
        _LOG_TERM,
        _EXPONENT,
        (-4.0, 4.0),
    )

    def log_loss(self, theta: Array, design: Design) -> Array:
        log_size, log_data = _log_terms(theta, design, eta_from=6)
        gamma = np.exp(theta[:, 5:6])
        larger = np.maximum(log_size, log_data)
        reducible = larger + gamma * np.log1p(np.exp(-np.abs(log_size - log_data) / gamma))
        return np.log(theta[:, 0:1] + np.exp(reducible))

    def evaluate(self, theta: Array, design: Design) -> Evaluation:
        terms = _Terms.of(theta, design, eta_from=6)
        gamma = np.exp(theta[:, 5:6])
        apart = terms.log_size - terms.log_data
        q_size, q_data = special.expit(apart / gamma), special.expit(-apart / gamma)
        entropy = special.entr(q_size) + special.entr(q_data)
        reducible = q_size * terms.log_size + q_data * terms.log_data + gamma * entropy
        loss = theta[:, 0:1] + np.exp(reducible)
        p_reducible = np.exp(reducible) / loss

        d_reducible = np.zeros((theta.shape[0], theta.shape[1], loss.shape[1]))
        d_reducible[:, terms.size_rows] = terms.d_size * q_size[:, None]
        d_reducible[:, 3:5] = terms.d_data * q_data[:, None]
        d_reducible[:, 5] = gamma * entropy
        jac = d_reducible * p_reducible[:, None]
        jac[:, 0] = 1.0 / loss

        def curvature(c: Array) -> Array:
            w = c * p_reducible
            hess = _gram(d_reducible, w)
            hess[:, 5, 5] += np.einsum("kn,kn->k", w, gamma * entropy)
            terms.add_size_curvature(hess, w * q_size, outer=False)
            # the soft maximum bends along ∇size − ∇data − apart·∇log γ
            bend = np.zeros_like(d_reducible)
            bend[:, terms.size_rows] = terms.d_size
            bend[:, 3:5] = -terms.d_data
            bend[:, 5] = -apart
            hess += _gram(bend, w * q_size * q_data / gamma)
            return hess

        return Evaluation(log_loss=np.log(loss), jacobian=jac, curvature=curvature)

    def raw(self, theta: Array, design: Design) -> dict[str, Array]:
        gamma = np.exp(theta[:, 5])
        unscaled = theta.copy()
        unscaled[:, 1:5] /= gamma[:, None]
        return _raw(unscaled, design) | {"gamma": gamma}


def _log_terms(theta: Array, design: Design, *, eta_from: int) -> tuple[Array, Array]:
    """log of the size term and of the data term, each (K, n)."""
    log_n, _ = design.effective(theta[:, eta_from:])
    log_d = design.log_tokens - design.log_d0
    return theta[:, 1:2] - theta[:, 2:3] * log_n, theta[:, 3:4] - theta[:, 4:5] * log_d


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """log(A·N_eff^−α) and log(B·D^−β) with their first and second derivatives in θ."""

    log_size: Array  # (K, n)
    log_data: Array  # (K, n)
    d_size: Array  # (K, 2 + q, n) in (log A₀, α, η)
    d_data: Array  # (1, 2, n) in (log B₀, β)
    size_rows: list[int]
    alpha: Array  # (K, 1)
    share: Array  # (K or 1, n) the loop's share of N_eff
    z: Array  # (q, n)

    @classmethod
    def of(cls, theta: Array, design: Design, eta_from: int = 5) -> _Terms:
        eta = theta[:, eta_from:]
        log_n, share = design.effective(eta)
        log_d = (design.log_tokens - design.log_d0)[None, :]
        alpha = theta[:, 2:3]
        d_size = np.empty((theta.shape[0], 2 + eta.shape[1], log_d.shape[1]))
        d_size[:, 0] = 1.0
        d_size[:, 1] = -log_n
        if eta.shape[1]:
            d_size[:, 2:] = (-alpha * share)[:, None] * design.z
        return cls(
            log_size=theta[:, 1:2] - alpha * log_n,
            log_data=theta[:, 3:4] - theta[:, 4:5] * log_d,
            d_size=d_size,
            d_data=np.stack([np.ones_like(log_d), -log_d], axis=1),
            size_rows=[1, 2, *range(eta_from, theta.shape[1])],
            alpha=alpha,
            share=share,
            z=design.z,
        )

    def add_size_curvature(self, hess: Array, w: Array, outer: bool = True) -> None:
        """hess += Σᵢ wᵢ (∇gᵢ∇gᵢᵀ [where outer] + ∇²gᵢ) with g = log(A·N_eff^−α)."""
        rows = self.size_rows
        block = _gram(self.d_size, w) if outer else np.zeros((len(hess), len(rows), len(rows)))
        if len(rows) > 2:
            ws = w * self.share
            cross = ws @ self.z.T  # −∂²g/∂α∂η
            block[:, 1, 2:] -= cross
            block[:, 2:, 1] -= cross
            block[:, 2:, 2:] -= _gram(self.z[None], self.alpha * ws * (1.0 - self.share))
        hess[:, np.array(rows)[:, None], rows] += block

    def add_data_curvature(self, hess: Array, w: Array) -> None:
        """hess += Σᵢ wᵢ ∇gᵢ∇gᵢᵀ with g = log(B·D^−β), which is linear in its parameters."""
        hess[:, 3:5, 3:5] += _gram(self.d_data, w)


def _gram(rows: Array, w: Array) -> Array:
    """Σₙ wₙ rowsₙ rowsₙᵀ: rows (K or 1, p, n), w (K, n) → (K, p, p)."""
    return np.matmul(rows * w[:, None, :], rows.swapaxes(1, 2))


def _raw(theta: Array, design: Design) -> dict[str, Array]:
    alpha, beta = theta[:, 2], theta[:, 4]
    with np.errstate(over="ignore"):  # exponents without sense give an infinite A or B
        return {
            "E": theta[:, 0],
            "A": np.exp(theta[:, 1] + alpha * design.log_n0),
            "alpha": alpha,
            "B": np.exp(theta[:, 3] + beta * design.log_d0),
            "beta": beta,
        }


LAWS: dict[LawName, Law] = {"additive": Additive(), "coupled": Coupled()}
MULTIPLICITIES: dict[MultiplicityName, Multiplicity] = {"power": Power(), "free": Free()}

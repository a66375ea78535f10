"""Loss as a function of (N_once, N_rec, r, D): the forms that isodepth fits and compares.

Every law is written in the parameters that the solver moves, θ: E itself, and the logarithms of the
two terms at reference scales N₀ and D₀ (the geometric means of the runs), which keeps log A and α
apart. `Law.raw` turns θ into the coefficients that people publish (raw parameters and tokens).

Effective parameters (arXiv 2604.21106, eq. for L): N_eff = N_once + m(r)·N_rec. A multiplicity is
linear in its parameters η: log m(r) = z(r)·η, with z(r) = log r for r^φ, and an indicator of each
r > 1 where every r has an m of its own.

Looped runs may differ from unlooped ones in more than their passes. A law can hold one more
parameter for that, the same for every r > 1: κ, by which their tokens count (D → κD), or δ nats,
added to their loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
LawName = Literal["additive", "coupled"]
MultiplicityName = Literal["power", "free"]
ArmsDiffer = Literal["none", "tokens", "loss"]


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a law sees of n runs."""

    n_once: Array  # (n,) parameters used once per token
    n_rec: Array  # (n,) parameters of the shared block
    z: Array  # (q, n) multiplicity columns: log m = zᵀη
    log_tokens: Array  # (n,) log D
    looped: Array  # (n,) 1 where r > 1, else 0
    log_n0: float  # log of the reference size N₀, parameters
    log_d0: float  # log of the reference token count D₀

    def only(self, rows: Integers) -> Design:
        """Some of the runs, under the same reference sizes."""
        return replace(
            self,
            n_once=self.n_once[rows],
            n_rec=self.n_rec[rows],
            z=self.z[:, rows],
            log_tokens=self.log_tokens[rows],
            looped=self.looped[rows],
        )

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

    θ is (shape parameters, η); the last shape parameter is that of `arms_differ`, where there is
    one. `bounds` gives each shape parameter's (lowest, highest) value; a fit that ends on one is
    reported as not identified there.
    """

    @property
    def name(self) -> LawName: ...

    @property
    def arms_differ(self) -> ArmsDiffer: ...

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

    def log_twin(self, theta: Array, design: Design) -> Array:
        """log N (K, n) of the unlooped models of equal loss at equal tokens; inf: none has it."""
        ...


_FLOOR = (0.0, 60.0)  # E, nats
_LOG_TERM = (-30.0, 12.0)
_EXPONENT = (0.0, 6.0)
ETA_BOUNDS = (-12.0, 12.0)


@dataclass(frozen=True, kw_only=True)
class _Arms:
    """The one parameter that tells looped arms from unlooped ones, beside m(r)."""

    shape: tuple[str, ...] = ()  # its name in θ
    bounds: tuple[tuple[float, float], ...] = ()
    formula: str = ""  # what it adds to a law's


_ARMS: dict[ArmsDiffer, _Arms] = {
    "none": _Arms(),
    "tokens": _Arms(
        shape=("log_tokens_ratio",), bounds=((-5.0, 5.0),), formula=", with D → κ·D at r > 1"
    ),
    "loss": _Arms(shape=("loss_offset",), bounds=((-20.0, 20.0),), formula=", and δ more at r > 1"),
}
ARMS_DIFFER = tuple(_ARMS)


@dataclass(frozen=True)
class _Form:
    """What both laws share. Subclasses give the terms' own names and how the terms meet."""

    arms_differ: ArmsDiffer = "none"
    _plain_formula: ClassVar[str]
    _plain_shape: ClassVar[tuple[str, ...]]
    _plain_bounds: ClassVar[tuple[tuple[float, float], ...]]

    @property
    def formula(self) -> str:
        return self._plain_formula + _ARMS[self.arms_differ].formula

    @property
    def shape(self) -> tuple[str, ...]:
        return self._plain_shape + _ARMS[self.arms_differ].shape

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return self._plain_bounds + _ARMS[self.arms_differ].bounds

    @property
    def _arm(self) -> int:
        """Row of θ that holds the parameter of `arms_differ`."""
        return len(self._plain_shape)

    def _log_tokens(self, theta: Array, design: Design) -> Array:
        """log of D / D₀ as the law counts it, (n,) or (K, n)."""
        log_d = design.log_tokens - design.log_d0
        if self.arms_differ == "tokens":
            return log_d + theta[:, self._arm, None] * design.looped
        return log_d

    def _floor(self, theta: Array, design: Design) -> Array:
        """What no parameter and no token lowers, nats: (K, 1 or n)."""
        if self.arms_differ == "loss":
            return theta[:, 0:1] + theta[:, self._arm, None] * design.looped
        return theta[:, 0:1]

    def _log_terms(self, theta: Array, design: Design) -> tuple[Array, Array]:
        """log of the size term and of the data term, each (K, n)."""
        log_n, _ = design.effective(theta[:, len(self.shape) :])
        log_d = self._log_tokens(theta, design)
        return theta[:, 1:2] - theta[:, 2:3] * log_n, theta[:, 3:4] - theta[:, 4:5] * log_d

    def _raw(self, theta: Array, design: Design) -> dict[str, Array]:
        """Of θ with the terms' own logarithms and exponents."""
        alpha, beta = theta[:, 2], theta[:, 4]
        with np.errstate(over="ignore"):  # exponents without sense give an infinite A or B
            found = {
                "E": theta[:, 0],
                "A": np.exp(theta[:, 1] + alpha * design.log_n0),
                "alpha": alpha,
                "B": np.exp(theta[:, 3] + beta * design.log_d0),
                "beta": beta,
            }
        if self.arms_differ == "tokens":
            found["tokens_ratio"] = np.exp(theta[:, self._arm])
        elif self.arms_differ == "loss":
            found["loss_offset"] = theta[:, self._arm]
        return found

    def _log_twin(self, theta: Array, design: Design, log_loss: Array, gamma: Array) -> Array:
        """`Law.log_twin` of models of a log loss (K, n), the terms meeting with γ (K or 1, 1)."""
        if self.arms_differ == "none":
            return design.effective(theta[:, len(self.shape) :])[0] + design.log_n0
        log_d = design.log_tokens - design.log_d0
        with np.errstate(all="ignore"):  # no size has a loss below that of an endless model
            reducible = np.log(np.exp(log_loss) - theta[:, 0:1])
            data = theta[:, 3:4] - theta[:, 4:5] * log_d
            size = reducible + gamma * np.log1p(-np.exp((data - reducible) / gamma))
            found = (theta[:, 1:2] - size) / theta[:, 2:3] + design.log_n0
        return np.where(np.isfinite(found), found, np.inf)


@dataclass(frozen=True)
class Additive(_Form):
    """L = E + A·N_eff^(−α) + B·D^(−β) (arXiv 2604.21106; Hoffmann et al. 2203.15556, eq. 2)."""

    name: LawName = "additive"
    _plain_formula = "L = E + A·(N_once + m(r)·N_rec)^(−α) + B·D^(−β)"
    _plain_shape = ("E", "log_A0", "alpha", "log_B0", "beta")
    _plain_bounds = (_FLOOR, _LOG_TERM, _EXPONENT, _LOG_TERM, _EXPONENT)

    def log_loss(self, theta: Array, design: Design) -> Array:
        log_size, log_data = self._log_terms(theta, design)
        return np.log(self._floor(theta, design) + np.exp(log_size) + np.exp(log_data))

    def evaluate(self, theta: Array, design: Design) -> Evaluation:
        terms = _Terms.of(self, theta, design)
        size, data = np.exp(terms.log_size), np.exp(terms.log_data)
        loss = self._floor(theta, design) + size + data
        p_size, p_data = size / loss, data / loss

        jac = np.empty((theta.shape[0], theta.shape[1], loss.shape[1]))
        jac[:, 0] = 1.0 / loss
        jac[:, terms.size_rows] = terms.d_size * p_size[:, None]
        jac[:, terms.data_rows] = terms.d_data * p_data[:, None]
        if self.arms_differ == "loss":
            jac[:, self._arm] = design.looped / loss

        def curvature(c: Array) -> Array:
            hess = np.zeros((theta.shape[0], theta.shape[1], theta.shape[1]))
            terms.add_size_curvature(hess, c * p_size)
            terms.add_data_curvature(hess, c * p_data)
            return hess

        return Evaluation(log_loss=np.log(loss), jacobian=jac, curvature=curvature)

    def raw(self, theta: Array, design: Design) -> dict[str, Array]:
        return self._raw(theta, design)

    def log_twin(self, theta: Array, design: Design) -> Array:
        return self._log_twin(theta, design, self.log_loss(theta, design), np.ones((1, 1)))


@dataclass(frozen=True)
class Coupled(_Form):
    """L = E + (A·N_eff^(−α) + B·D^(−β))^γ: one more parameter lets N and D interact.

    γ = 1 is the additive law. A and B carry the units inside the bracket. θ holds the terms'
    logarithms multiplied by γ (γ·log A₀, γ·α, γ·log B₀, γ·β): the bracket's γ-th power is then a
    soft maximum of the two terms with γ as its temperature, and the fit's long valley is gone.
    """

    name: LawName = "coupled"
    _plain_formula = "L = E + (A·(N_once + m(r)·N_rec)^(−α) + B·D^(−β))^γ"
    _plain_shape = ("E", "gamma_log_A0", "gamma_alpha", "gamma_log_B0", "gamma_beta", "log_gamma")
    _plain_bounds = (_FLOOR, _LOG_TERM, _EXPONENT, _LOG_TERM, _EXPONENT, (-4.0, 4.0))

    def log_loss(self, theta: Array, design: Design) -> Array:
        log_size, log_data = self._log_terms(theta, design)
        gamma = np.exp(theta[:, 5:6])
        larger = np.maximum(log_size, log_data)
        reducible = larger + gamma * np.log1p(np.exp(-np.abs(log_size - log_data) / gamma))
        return np.log(self._floor(theta, design) + np.exp(reducible))

    def evaluate(self, theta: Array, design: Design) -> Evaluation:
        terms = _Terms.of(self, theta, design)
        gamma = np.exp(theta[:, 5:6])
        apart = terms.log_size - terms.log_data
        q_size, q_data = special.expit(apart / gamma), special.expit(-apart / gamma)
        entropy = special.entr(q_size) + special.entr(q_data)
        reducible = q_size * terms.log_size + q_data * terms.log_data + gamma * entropy
        loss = self._floor(theta, design) + np.exp(reducible)
        p_reducible = np.exp(reducible) / loss

        d_reducible = np.zeros((theta.shape[0], theta.shape[1], loss.shape[1]))
        d_reducible[:, terms.size_rows] = terms.d_size * q_size[:, None]
        d_reducible[:, terms.data_rows] = terms.d_data * q_data[:, None]
        d_reducible[:, 5] = gamma * entropy
        jac = d_reducible * p_reducible[:, None]
        jac[:, 0] = 1.0 / loss
        if self.arms_differ == "loss":
            jac[:, self._arm] = design.looped / loss

        def curvature(c: Array) -> Array:
            w = c * p_reducible
            hess = _gram(d_reducible, w)
            hess[:, 5, 5] += np.einsum("kn,kn->k", w, gamma * entropy)
            terms.add_size_curvature(hess, w * q_size, outer=False)
            terms.add_data_curvature(hess, w * q_data, outer=False)
            # the soft maximum bends along ∇size − ∇data − apart·∇log γ
            bend = np.zeros_like(d_reducible)
            bend[:, terms.size_rows] = terms.d_size
            bend[:, terms.data_rows] = -terms.d_data
            bend[:, 5] = -apart
            hess += _gram(bend, w * q_size * q_data / gamma)
            return hess

        return Evaluation(log_loss=np.log(loss), jacobian=jac, curvature=curvature)

    def raw(self, theta: Array, design: Design) -> dict[str, Array]:
        gamma = np.exp(theta[:, 5])
        unscaled = theta.copy()
        unscaled[:, 1:5] /= gamma[:, None]
        return self._raw(unscaled, design) | {"gamma": gamma}

    def log_twin(self, theta: Array, design: Design) -> Array:
        gamma = np.exp(theta[:, 5:6])
        return self._log_twin(theta, design, self.log_loss(theta, design), gamma)


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """log(A·N_eff^−α) and log(B·D^−β) with their first and second derivatives in θ."""

    log_size: Array  # (K, n)
    log_data: Array  # (K, n)
    d_size: Array  # (K, 2 + q, n) in (log A₀, α, η)
    d_data: Array  # (1 or K, 2 or 3, n) in (log B₀, β[, log κ])
    size_rows: list[int]
    data_rows: list[int]
    alpha: Array  # (K, 1)
    share: Array  # (K or 1, n) the loop's share of N_eff
    z: Array  # (q, n)
    looped: Array  # (n,) 1 where r > 1

    @classmethod
    def of(cls, law: _Form, theta: Array, design: Design) -> _Terms:
        eta_from = len(law.shape)
        eta = theta[:, eta_from:]
        log_n, share = design.effective(eta)
        log_d = np.atleast_2d(law._log_tokens(theta, design))
        alpha, beta = theta[:, 2:3], theta[:, 4:5]
        d_size = np.empty((theta.shape[0], 2 + eta.shape[1], log_d.shape[1]))
        d_size[:, 0] = 1.0
        d_size[:, 1] = -log_n
        if eta.shape[1]:
            d_size[:, 2:] = (-alpha * share)[:, None] * design.z
        d_data, data_rows = [np.ones_like(log_d), -log_d], [3, 4]
        if law.arms_differ == "tokens":
            d_data.append(-beta * design.looped)
            data_rows.append(eta_from - 1)
        return cls(
            log_size=theta[:, 1:2] - alpha * log_n,
            log_data=theta[:, 3:4] - beta * log_d,
            d_size=d_size,
            d_data=np.stack(d_data, axis=1),
            size_rows=[1, 2, *range(eta_from, theta.shape[1])],
            data_rows=data_rows,
            alpha=alpha,
            share=share,
            z=design.z,
            looped=design.looped,
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

    def add_data_curvature(self, hess: Array, w: Array, outer: bool = True) -> None:
        """hess += Σᵢ wᵢ (∇gᵢ∇gᵢᵀ [where outer] + ∇²gᵢ) with g = log(B·(κD)^−β)."""
        rows = self.data_rows
        if outer:
            hess[:, np.array(rows)[:, None], rows] += _gram(self.d_data, w)
        if len(rows) > 2:
            cross = w @ self.looped  # −∂²g/∂β∂log κ
            hess[:, 4, rows[2]] -= cross
            hess[:, rows[2], 4] -= cross


def _gram(rows: Array, w: Array) -> Array:
    """Σₙ wₙ rowsₙ rowsₙᵀ: rows (K or 1, p, n), w (K, n) → (K, p, p)."""
    return np.matmul(rows * w[:, None, :], rows.swapaxes(1, 2))


_FORMS: dict[LawName, type[Additive] | type[Coupled]] = {"additive": Additive, "coupled": Coupled}
LAWS: dict[LawName, Law] = {name: form() for name, form in _FORMS.items()}
MULTIPLICITIES: dict[MultiplicityName, Multiplicity] = {"power": Power(), "free": Free()}


def law_of(name: LawName, arms_differ: ArmsDiffer) -> Law:
    """A law whose looped arms may differ from unlooped ones by one parameter."""
    return _FORMS[name](arms_differ)

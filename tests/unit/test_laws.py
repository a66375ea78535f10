"""Laws against the formulas written out, and their derivatives against differences."""

from dataclasses import replace

import numpy as np
import pytest

from isodepth.laws import ARMS_DIFFER, LAWS, MULTIPLICITIES, Additive, Coupled, Design, law_of

R = np.array([1.0, 1, 2, 2, 4, 4, 8, 8])


def design(multiplicity="power"):
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(16, 20, R.size))
    return Design(
        n_once=0.2 * n,
        n_rec=0.8 * n / R,
        z=MULTIPLICITIES[multiplicity].columns(R),
        log_tokens=rng.uniform(19, 23, R.size),
        looped=(R > 1).astype(float),
        log_n0=18.0,
        log_d0=21.0,
    )


THETA = {
    "additive": np.array([[1.5, -0.4, 0.22, -1.0, 0.36]]),
    "coupled": np.array([[1.2, 0.1, 0.18, -0.3, 0.23, -0.5]]),
}
ARM = {"none": np.empty((1, 0)), "tokens": np.array([[0.3]]), "loss": np.array([[0.04]])}
ETA = {"power": np.array([[0.45]]), "free": np.log([[1.3, 1.9, 2.5]])}


def start(law, multiplicity, arms="none"):
    return np.concatenate([THETA[law], ARM[arms], ETA[multiplicity]], axis=1)


@pytest.mark.parametrize("multiplicity", ["power", "free"])
def test_additive_is_the_published_formula(multiplicity):
    law, d, theta = Additive(), design(multiplicity), start("additive", multiplicity)
    c = {k: v[0] for k, v in law.raw(theta, d).items()}
    m = R**0.45 if multiplicity == "power" else np.array([1, 1, 1.3, 1.3, 1.9, 1.9, 2.5, 2.5])
    n = d.n_once + m * d.n_rec
    loss = c["E"] + c["A"] * n ** -c["alpha"] + c["B"] * np.exp(d.log_tokens) ** -c["beta"]
    np.testing.assert_allclose(np.exp(law.log_loss(theta, d))[0], loss, rtol=1e-12)


def test_coupled_is_its_formula():
    law, d, theta = Coupled(), design(), start("coupled", "power")
    c = {k: v[0] for k, v in law.raw(theta, d).items()}
    n = d.n_once + R**0.45 * d.n_rec
    inner = c["A"] * n ** -c["alpha"] + c["B"] * np.exp(d.log_tokens) ** -c["beta"]
    np.testing.assert_allclose(
        np.exp(law.log_loss(theta, d))[0], c["E"] + inner ** c["gamma"], rtol=1e-12
    )


def test_coupled_at_gamma_1_is_additive():
    d = design()
    theta = start("additive", "power")
    coupled = np.insert(theta, 5, 0.0, axis=1)
    np.testing.assert_allclose(
        Coupled().log_loss(coupled, d), Additive().log_loss(theta, d), rtol=1e-12
    )


@pytest.mark.parametrize("law", LAWS)
def test_a_constant_of_looped_arms_is_its_formula(law):
    """Tokens count κ times, or δ nats are added, at r > 1 and nowhere else."""
    d = design()
    more = replace(d, log_tokens=d.log_tokens + np.where(R > 1, 0.3, 0.0))
    plain = start(law, "power")
    tokens = law_of(law, "tokens").log_loss(start(law, "power", "tokens"), d)
    np.testing.assert_allclose(tokens, LAWS[law].log_loss(plain, more), rtol=1e-13)
    loss = np.exp(law_of(law, "loss").log_loss(start(law, "power", "loss"), d))
    np.testing.assert_allclose(
        loss, np.exp(LAWS[law].log_loss(plain, d)) + 0.04 * (R > 1), rtol=1e-13
    )
    raw = {a: law_of(law, a).raw(start(law, "power", a), d) for a in ARMS_DIFFER}
    assert raw["tokens"]["tokens_ratio"] == pytest.approx(np.exp(0.3))
    assert raw["loss"]["loss_offset"] == pytest.approx(0.04)
    for found in raw.values():
        assert {k: found[k] for k in raw["none"]} == raw["none"]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("arms", ARMS_DIFFER)
def test_a_twin_has_the_loss_of_its_looped_model(law, arms):
    form, d, theta = law_of(law, arms), design(), start(law, "power", arms)
    twin = np.exp(form.log_twin(theta, d))[0]
    assert np.isfinite(twin).all()
    unlooped = replace(d, n_once=twin, n_rec=0 * R, z=0 * d.z, looped=0 * R)
    np.testing.assert_allclose(form.log_loss(theta, unlooped), form.log_loss(theta, d), rtol=1e-12)
    np.testing.assert_allclose(twin[R == 1], (d.n_once + d.n_rec)[R == 1], rtol=1e-9)


@pytest.mark.parametrize("law", LAWS)
def test_no_twin_where_no_size_is_large_enough(law):
    form, d, theta = law_of(law, "loss"), design(), start(law, "power", "loss")
    theta[0, -2] = -1.0
    endless = replace(d, n_once=np.full(R.size, 1e60), n_rec=0 * R, looped=0 * R)
    beyond = form.log_loss(theta, d) < form.log_loss(theta, endless)
    assert 0 < beyond.sum() <= (R > 1).sum()
    assert (np.isinf(form.log_twin(theta, d)) == beyond).all()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("multiplicity", MULTIPLICITIES)
@pytest.mark.parametrize("arms", ARMS_DIFFER)
def test_derivatives(law, multiplicity, arms):
    form, d, theta = law_of(law, arms), design(multiplicity), start(law, multiplicity, arms)
    assert len(form.shape) == len(form.bounds) == theta.shape[1] - len(d.z)
    at = form.evaluate(theta, d)
    np.testing.assert_allclose(at.log_loss, form.log_loss(theta, d), rtol=1e-13)
    step = 1e-5 * np.eye(theta.shape[1])
    jacobian = np.array(
        [(form.log_loss(theta + s, d) - form.log_loss(theta - s, d))[0] / 2e-5 for s in step]
    )
    np.testing.assert_allclose(at.jacobian[0], jacobian, atol=1e-9)
    c = np.random.default_rng(1).normal(size=(1, R.size))

    def gradient(t):
        return form.evaluate(t, d).jacobian[0] @ c[0]

    hessian = np.array([(gradient(theta + s) - gradient(theta - s)) / 2e-5 for s in step])
    outer = (at.jacobian[0] * c) @ at.jacobian[0].T
    np.testing.assert_allclose(at.curvature(c)[0] - outer, hessian, atol=1e-8)


def test_phi_1_counts_every_pass_and_phi_0_none():
    d = design()
    for phi, count in ((1.0, R), (0.0, np.ones_like(R))):
        log_n, _ = d.effective(np.array([[phi]]))
        np.testing.assert_allclose(np.exp(log_n[0] + d.log_n0), d.n_once + count * d.n_rec)


def test_multiplicity_names():
    assert MULTIPLICITIES["power"].names(R) == ("phi",)
    assert MULTIPLICITIES["free"].names(R) == ("log_m2", "log_m4", "log_m8")
    unlooped = np.ones(3)
    assert MULTIPLICITIES["power"].names(unlooped) == ()
    assert MULTIPLICITIES["power"].columns(unlooped).shape == (0, 3)
    assert MULTIPLICITIES["free"].columns(unlooped).shape == (0, 3)

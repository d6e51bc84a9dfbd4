import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.diffusion.guidance import Guidance, classifier_free
from music_diffusion.diffusion.parameterizations import X0, Epsilon, V
from music_diffusion.errors import UserError

B, T, F = 2, 3, 4
LOGSNR = jnp.asarray([-1.0, 2.0])


class CountingDenoiser:
    """Nonlinear in z, log-SNR and conditions; counts calls and examples."""

    def __init__(self):
        self.calls = self.examples = 0

    def __call__(self, z, logsnr, cond):
        self.calls += 1
        self.examples += z.shape[0]
        notes, performance = cond["notes"], cond["performance"]
        return jnp.tanh(z * notes[:, :, None] + logsnr[:, None, None] + performance[:, None, None])


def _z():
    return jnp.asarray(np.random.default_rng(0).standard_normal((B, T, F)), jnp.float32)


def _conditions():
    rng = np.random.default_rng(1)
    full = {"notes": jnp.asarray(rng.standard_normal((B, T)), jnp.float32),
            "performance": jnp.asarray(rng.standard_normal(B), jnp.float32)}
    without_notes = full | {"notes": jnp.zeros((B, T))}
    without_performance = full | {"performance": jnp.zeros(B)}
    return full, without_notes, without_performance


weight = st.floats(-3.0, 8.0, width=32)


@settings(max_examples=15, deadline=None)
@given(w=weight, stack=st.booleans())
def test_one_condition_is_the_papers_formula(w, stack):
    z, denoise = _z(), CountingDenoiser()
    cond, uncond, _ = _conditions()
    eps_c, eps_u = (np.float64(denoise(z, LOGSNR, c)) for c in (cond, uncond))
    guided = Guidance(weights=(w,), stack=stack)(denoise, (cond, uncond))(z, LOGSNR)
    np.testing.assert_allclose(guided, eps_u + w * (eps_c - eps_u), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(w_notes=weight, w_performance=weight, stack=st.booleans())
def test_two_conditions_each_with_its_weight(w_notes, w_performance, stack):
    z, denoise, conditions = _z(), CountingDenoiser(), _conditions()
    full, no_notes, no_performance = (np.float64(denoise(z, LOGSNR, c)) for c in conditions)
    guided = Guidance(weights=(w_notes, w_performance), stack=stack)(denoise, conditions)(z, LOGSNR)
    expected = (full + (w_notes - 1) * (full - no_notes)
                + (w_performance - 1) * (full - no_performance))
    np.testing.assert_allclose(guided, expected, atol=1e-5)


def test_function_form_is_the_same():
    z, conditions = _z(), _conditions()
    np.testing.assert_array_equal(
        classifier_free(CountingDenoiser(), conditions, [1.25, 1.25])(z, LOGSNR),
        Guidance(weights=(1.25, 1.25))(CountingDenoiser(), conditions)(z, LOGSNR))


def test_weights_of_one_are_the_plain_conditional_at_no_extra_cost():
    z, conditions, denoise = _z(), _conditions(), CountingDenoiser()
    guided = Guidance(weights=(1.0, 1.0))(denoise, conditions)(z, LOGSNR)
    assert (denoise.calls, denoise.examples) == (1, B)
    np.testing.assert_array_equal(guided, CountingDenoiser()(z, LOGSNR, conditions[0]))


def test_weight_zero_is_the_unconditional():
    z, (cond, uncond, _) = _z(), _conditions()
    guided = Guidance(weights=(0.0,))(CountingDenoiser(), (cond, uncond))(z, LOGSNR)
    np.testing.assert_allclose(guided, CountingDenoiser()(z, LOGSNR, uncond), atol=1e-6)


@pytest.mark.parametrize("weights, variants", [((2.0, 1.5), 3), ((2.0, 1.0), 2), ((1.0, 2.0), 2)])
def test_evaluations(weights, variants):
    for stack, calls in ((True, 1), (False, variants)):
        denoise = CountingDenoiser()
        Guidance(weights=weights, stack=stack)(denoise, _conditions())(_z(), LOGSNR)
        assert (denoise.calls, denoise.examples) == (calls, variants * B)


def test_unstacked_conditions_may_differ_in_structure():
    def denoise(z, logsnr, cond):
        return z if cond is None else z + cond

    guided = Guidance(weights=(3.0,), stack=False)(denoise, (jnp.float32(1.0), None))
    np.testing.assert_allclose(guided(_z(), LOGSNR), _z() + 3.0, atol=1e-6)


@pytest.mark.parametrize("parameterization", [X0(), V()], ids=repr)
def test_guiding_raw_outputs_is_guiding_the_noise(parameterization):
    z, conditions = _z(), _conditions()
    eps = Guidance(weights=(1.25, 2.0))(CountingDenoiser(), conditions)(z, LOGSNR)

    def raw_denoise(z, logsnr, cond):
        x0 = Epsilon().to_x0(CountingDenoiser()(z, logsnr, cond), z, logsnr)
        return parameterization.from_x0(x0, z, logsnr)

    raw = Guidance(weights=(1.25, 2.0))(raw_denoise, conditions)(z, LOGSNR)
    np.testing.assert_allclose(parameterization.to_eps(raw, z, LOGSNR), eps, atol=1e-5)


def test_mismatched_or_infinite_weights_are_refused():
    with pytest.raises(UserError, match="2 guidance weights need 3 conditions"):
        Guidance(weights=(2.0, 2.0))(CountingDenoiser(), _conditions()[:2])
    with pytest.raises(UserError, match="finite"):
        Guidance(weights=(float("nan"),))

"""Norms against the model's own modules and autograd."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from helpers.models.norms import Norm
from helpers.observable_propagation.pull_back import IgnoreNorms, NormGradients, NormWeights

pytestmark = pytest.mark.unit
NAMES = ["ln_final", "blocks.0.ln1", "blocks.1.ln2"]
IN_32_BITS = "HuggingFaceTB/SmolLM2-135M-Instruct"  # transformers computes its RMSNorm in 32 bits whatever the weights are


def some(model, seed: int = 0, n: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, model.cfg.d_model, generator=generator, dtype=torch.float64) + 0.5


def tolerance(model) -> dict[str, float]:
    return (
        {"rtol": 1e-5, "atol": 1e-5}
        if model.cfg.model_name == IN_32_BITS
        else {"rtol": 1e-11, "atol": 1e-11}
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_norm_computes_what_the_models_module_computes(tiny, name: str) -> None:
    x = some(tiny)
    norm = Norm.of(tiny, name)
    torch.testing.assert_close(norm(x), tiny.get_submodule(name)(x[None])[0], **tolerance(tiny))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_equals_autograd_through_the_module(tiny, name: str) -> None:
    x, y = some(tiny).requires_grad_(True), some(tiny, seed=1)
    with torch.enable_grad():
        (expected,) = torch.autograd.grad((tiny.get_submodule(name)(x[None])[0] * y).sum(), x)
    norm = Norm.of(tiny, name)
    torch.testing.assert_close(norm.gradient(y, x.detach()), expected, **tolerance(tiny))
    # Negative control: with σ held fixed it is another vector.
    assert not torch.allclose(norm.fixed(y, x.detach()), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_with_its_scale_held_fixed_a_norm_is_linear_and_exact(tiny, name: str) -> None:
    norm, x, y = Norm.of(tiny, name), some(tiny), some(tiny, seed=1)
    offset = 0 if norm.bias is None else y @ norm.bias
    torch.testing.assert_close((norm.fixed(y, x) * x).sum(-1) + offset, (norm(x) * y).sum(-1))


def test_the_papers_approximation_is_the_gradient_but_for_two_projections(tiny) -> None:
    norm = Norm.of(tiny, "ln_final")
    x, y = some(tiny), some(tiny, seed=1)
    x = 1e4 * norm.centre(x)  # so large that ε does not matter, and centred: ‖x‖ is ‖Px‖
    unit = x / x.norm(dim=-1, keepdim=True)
    approximated = norm.weighted(y, x.norm(dim=-1, keepdim=True))
    projected = norm.centre(approximated)
    projected = projected - unit * (unit * projected).sum(-1, keepdim=True)
    torch.testing.assert_close(projected, norm.gradient(y, x))


def test_the_three_treatments_are_what_they_say(tiny) -> None:
    norm, x, y = Norm.of(tiny, "ln_final"), some(tiny)[0], some(tiny, seed=1)[0]
    assert torch.equal(IgnoreNorms().pull_back(norm, y), y)
    torch.testing.assert_close(
        NormWeights({"ln_final": 7.0}).pull_back(norm, y),
        tiny.cfg.d_model**0.5 / 7 * norm.weight * y,
    )
    torch.testing.assert_close(
        NormWeights().pull_back(norm, y), tiny.cfg.d_model**0.5 * norm.weight * y
    )
    assert torch.equal(NormGradients({"ln_final": x}).pull_back(norm, y), norm.gradient(y, x))


def test_a_gradient_without_its_point_is_refused(tiny) -> None:
    norm, y = Norm.of(tiny, "ln_final"), some(tiny)[0]
    with pytest.raises(ValueError, match="no point is given .* ln_final; there are blocks.0.ln1"):
        NormGradients({"blocks.0.ln1": y}).pull_back(norm, y)


def test_a_norm_that_is_not_there_is_refused(tiny) -> None:
    with pytest.raises(ValueError, match="no norm 'blocks.7.ln1'"):
        Norm.of(tiny, "blocks.7.ln1")


def test_a_norm_of_another_kind_is_refused() -> None:
    model = SimpleNamespace(cfg=SimpleNamespace(normalization_type="LNPre", model_name="folded"))
    with pytest.raises(ValueError, match="norms of type 'LNPre'"):
        Norm.of(model, "ln_final")

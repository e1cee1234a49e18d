"""Norms against the model's own modules and autograd."""

from __future__ import annotations

import pytest
import torch

from helpers.models.norms import Norm

pytestmark = pytest.mark.unit
NAMES = ["ln_final", "blocks.0.ln1", "blocks.1.ln2"]


@pytest.fixture
def xy(tiny) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, tiny.cfg.d_model, generator=generator, dtype=torch.float64)
    return 3 * x + 0.5, y


@pytest.mark.parametrize("name", NAMES)
def test_a_norm_and_its_gradient_are_those_of_the_models_module(tiny, xy, name) -> None:
    x, y = xy
    norm, module = Norm.of(tiny, name), tiny.get_submodule(name)
    # transformers computes RMSNorm in 32 bits, whatever the weights are.
    close = dict.fromkeys(("rtol", "atol"), 1e-11 if norm.centred else 1e-5)
    x.requires_grad_(True)
    with torch.enable_grad():
        expected = module(x[None])[0]
        (gradient,) = torch.autograd.grad((expected * y).sum(), x)
    x = x.detach()
    torch.testing.assert_close(norm(x), expected.detach(), **close)
    torch.testing.assert_close(norm.gradient(y, x), gradient, **close)
    # Negative control: with σ held it is another vector.
    assert not torch.allclose(norm.fixed(y, x), gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_with_its_scale_held_a_norm_is_linear_and_exact(tiny, xy, name) -> None:
    norm, (x, y) = Norm.of(tiny, name), xy
    offset = 0 if norm.bias is None else y @ norm.bias
    torch.testing.assert_close((norm.fixed(y, x) * x).sum(-1) + offset, (norm(x) * y).sum(-1))


def test_the_papers_approximation_is_the_gradient_but_for_two_projections(tiny, xy) -> None:
    norm, (x, y) = Norm.of(tiny, "ln_final"), xy
    x = 1e4 * norm.centre(x)  # so large that ε does not matter, and centred: ‖x‖ is ‖Px‖
    unit = x / x.norm(dim=-1, keepdim=True)
    projected = norm.centre(norm.weighted(y, x.norm(dim=-1, keepdim=True)))
    projected = projected - unit * (unit * projected).sum(-1, keepdim=True)
    torch.testing.assert_close(projected, norm.gradient(y, x))


def test_a_norm_that_is_missing_or_a_module_of_another_kind_is_refused(tiny) -> None:
    for name in ("blocks.7.ln1", "ln_first", ""):
        with pytest.raises(ValueError, match=f"no norm '{name}'"):
            Norm.of(tiny, name)
    for name in ("blocks.0.mlp", "unembed"):
        with pytest.raises(ValueError, match=f"{name} of .* is neither LayerNorm nor RMSNorm"):
            Norm.of(tiny, name)

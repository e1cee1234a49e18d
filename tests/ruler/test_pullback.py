"""The Jacobian pullback: its frozen form is the sum of the second paper's path vectors."""

from __future__ import annotations

import pytest
import torch

from helpers.models.norms import Norm
from helpers.models.resume import Run
from helpers.models.tokens import tokenize
from helpers.observable_propagation.paths import path_feature, reading
from helpers.observable_propagation.pull_back import NormGradients
from helpers.ruler.pullback import all_paths, pullback
from tests.conftest import rounds

pytestmark = pytest.mark.unit

TEXTS = ("w1 w2 w3 w4", "w9 w8 w7 w6")
RULE = "the sum of the path vectors is the pullback, to 1e-4 of its length"


def sum_of_paths(model, tokens, m, layer: int) -> torch.Tensor:
    """Over all paths from the last token, on one text: score times feature vector."""
    whole = next(chain for chain in all_paths(model, layer) if len(chain) == 0)
    total = path_feature(model, whole, m, norms=NormGradients(points_of(model, tokens, whole)))
    for chain in list(all_paths(model, layer))[1:]:
        found = reading(model, chain, tokens, [-1] * (len(chain) + 1))
        total = total + found.score * path_feature(
            model, chain, m, norms=NormGradients(found.points)
        )
    return total


def points_of(model, tokens, chain):
    return reading(model, chain, tokens, [-1]).points


@pytest.mark.slow
def test_path_vectors_sum_to_the_pullback_with_frozen_patterns(tiny) -> None:
    tokens = tokenize(tiny, list(TEXTS))
    generator = torch.Generator().manual_seed(0)
    m = torch.randn(tiny.cfg.d_model, generator=generator, dtype=torch.float64)
    for layer in (0, 1):
        paths = torch.stack([sum_of_paths(tiny, text, m, layer) for text in tokens]).mean(0)
        frozen = pullback(tiny, Run.of(tiny, tokens), m, [layer], frozen=True)[0]
        assert (paths - frozen).norm() <= 1e-4 * frozen.norm(), RULE
        # Negative control: a path left out is seen.
        one = next(chain for chain in all_paths(tiny, layer) if len(chain) == 1)
        found = reading(tiny, one, tokens[0], [-1, -1])
        part = found.score * path_feature(tiny, one, m, norms=NormGradients(found.points))
        assert (paths - part / 2 - frozen).norm() > 1e-4 * frozen.norm()


def test_the_pullback_is_the_gradient_of_the_logits(tiny) -> None:
    """By central differences of m·ln_final(x), attention patterns included."""
    tokens = tokenize(tiny, list(TEXTS))
    run = Run.of(tiny, tokens)
    m = torch.ones(1, tiny.cfg.d_model, dtype=torch.float64).cumsum(-1).sin()
    full, frozen = (pullback(tiny, run, m, [0, 1], frozen=which) for which in (False, True))
    final, step = Norm.of(tiny, "ln_final"), 1e-3 if rounds(tiny) else 1e-5
    for row, layer in enumerate((0, 1)):
        v = torch.linspace(-1, 1, tiny.cfg.d_model, dtype=torch.float64)
        v = v / v.norm()
        ends = run.steered(tiny, layer, -1, torch.stack([step * v, -step * v]))
        up, down = (final(ends) @ m[0]).mean(1)
        slope = (up - down) / (2 * step)
        assert torch.allclose(full[row, 0] @ v, slope, rtol=1e-2, atol=1e-3)
    assert (full - frozen).norm() > 1e-3 * full.norm(), "patterns depend on the stream"


def test_many_observables_in_batches_of_any_size_are_what_each_is_alone(tiny) -> None:
    run = Run.of(tiny, tokenize(tiny, list(TEXTS)))
    m = torch.linspace(-1, 1, 3 * tiny.cfg.d_model, dtype=torch.float64).view(3, -1)
    together = pullback(tiny, run, m, [0, 1], batch_size=4)
    for row, one in enumerate(m):
        alone = pullback(tiny, run, one, [0, 1])
        assert torch.allclose(together[:, row], alone, rtol=1e-4, atol=1e-5)

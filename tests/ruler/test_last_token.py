"""Edits at the last token: their published formulas, β = 0, and batches in any order.

The formulas are written out here as oracles: pyreft cannot be installed beside the book's pins.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from helpers.activation_scaling.objective import evaluate
from helpers.activation_scaling.together import evaluate_many
from helpers.models.resume import Run
from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.edits import edited, projection
from helpers.prompts.prompts import Prompts
from helpers.ruler.axes import Bench, counted, strength_for
from helpers.ruler.edits import (
    Edit,
    GatedVec,
    HeadGates,
    LoReFT,
    SetReading,
    ToldVec,
    last_points,
    steered,
)

pytestmark = pytest.mark.unit


def prompts_of(model) -> Prompts:
    texts = ["w1 w2 w3 w4", "w5 w6 w7 w8", "w9 w10 w11 w12"]
    return Prompts.of(model, texts, ["w21", "w22", "w23"], ["w31", "w32", "w33"])


def fresh(model, kind, n_pos: int, *sites, layer=1):
    made = kind(last_points(model, n_pos, layer, *sites), dtype=torch.float64)
    made.reset(seed=3, std=0.5)
    return made


def loreft(h, theta, beta):
    """Rᵀ(Wh + b − Rh) of Wu et al. (2024), Eq. 2, with R = r̂ and W = w + r̂."""
    r, w, b = theta.split([h.shape[-1], h.shape[-1], 1])
    R = normalize(r, dim=-1)[None]
    W = w[None] + R
    return h + beta * (h @ W.T + b - h @ R.T) @ R


def gated(h, theta, beta):
    v, g, c = theta.split([h.shape[-1], h.shape[-1], 1])
    gate = torch.sigmoid(h @ g / h.norm(dim=-1) + c)
    return h + beta * gate[:, None] * v


def test_neighbours_of_two_kinds_in_a_batch_keep_their_own_edits(tiny) -> None:
    """The two have parameters of one shape at the same points."""
    prompts = prompts_of(tiny)
    cases = [(fresh(tiny, kind, prompts.n_pos), prompts) for kind in (LoReFT, GatedVec)]
    for (made, _), found in zip(cases, evaluate_many(tiny, cases)):
        alone = evaluate(tiny, made, prompts)
        assert (found.E0, found.F) == pytest.approx((alone.E0, alone.F), rel=1e-4)


@pytest.mark.parametrize(("kind", "formula"), [(LoReFT, loreft), (GatedVec, gated)])
def test_a_learned_edit_is_its_published_formula(tiny, kind, formula) -> None:
    prompts, beta = prompts_of(tiny), -0.7
    made = fresh(tiny, kind, prompts.n_pos)
    theta = made.theta["resid_post"][0].detach()
    with torch.no_grad():
        with edited(tiny, 1, -1, lambda h: formula(h, theta, beta)):
            expected = last_logits(tiny, prompts.tokens)
        found = steered(tiny, Run.of(tiny, prompts.tokens), made, [beta, 0.0])
    assert torch.allclose(found[0], expected, atol=1e-6)
    assert torch.allclose(found[1], last_logits(tiny, prompts.tokens), atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_gates_only_ever_close_heads_at_the_last_token(tiny) -> None:
    prompts = prompts_of(tiny)
    made = fresh(tiny, HeadGates, prompts.n_pos, "z", layer=None)
    name = "blocks.0.attn.hook_z"
    before, _ = read_activations(tiny, prompts.tokens, [name])
    for beta, column in ((1.0, 0), (-1.0, 1)):
        gate = (4 + made.theta["z"][0, :, column]).sigmoid()
        with made.applied(tiny, beta):
            after, _ = read_activations(tiny, prompts.tokens, [name])
        expected = before[name].clone()
        expected[:, -1] *= gate.detach()[:, None]
        assert torch.allclose(after[name], expected, atol=1e-9)


def test_each_prompt_gets_its_own_vector_at_every_strength(tiny) -> None:
    prompts = prompts_of(tiny)
    vectors = torch.randn(3, tiny.cfg.d_model, generator=torch.Generator().manual_seed(0)).double()
    made = ToldVec(last_points(tiny, prompts.n_pos, 2), vectors)
    betas = [1.0, -0.5, 2.0]
    with torch.no_grad():
        found = steered(tiny, Run.of(tiny, prompts.tokens), made, betas)
        for beta, rows in zip(betas, found):
            with edited(tiny, 2, -1, lambda h, beta=beta: h + beta * vectors):
                assert torch.allclose(last_logits(tiny, prompts.tokens), rows, atol=1e-6)


def test_a_set_reading_is_a_projection_to_a_target(tiny) -> None:
    prompts, generator = prompts_of(tiny), torch.Generator().manual_seed(0)
    y, mean = torch.randn(2, tiny.cfg.d_model, generator=generator).double()
    made = SetReading(last_points(tiny, prompts.n_pos, 1), y.expand(3, -1), mean, target=2.0)
    h = torch.randn(3, 1, tiny.cfg.d_model, generator=generator).double()
    theta = made.theta["resid_post"][0]
    after = h + made.change(h, theta, torch.tensor(-1.0))
    erased = projection(y, mean)(h)
    assert torch.allclose(after, erased - 2.0 * y / (y @ y), atol=1e-9)
    assert torch.allclose((after - mean) @ y, torch.full((3, 1), -2.0).double(), atol=1e-9)


def test_the_strength_costs_the_budget_and_passes_are_counted(tiny) -> None:
    prompts = prompts_of(tiny)
    bench = Bench(tiny, prompts)
    vectors = torch.randn(3, tiny.cfg.d_model, generator=torch.Generator().manual_seed(1)).double()
    edit = Edit(lambda p: ToldVec(last_points(tiny, p.n_pos, 1), vectors), 32, 1, 1)
    with counted(tiny) as cost:
        beta = strength_for(bench, edit, 0.01)
    assert bench.damage(edit, beta) == pytest.approx(0.01, rel=0.1)
    assert bench.damage(edit, 2 * beta) > 0.02, "another strength costs another amount"
    assert cost["forward"] % 3 == 0 < cost["forward"] and cost["backward"] == 0

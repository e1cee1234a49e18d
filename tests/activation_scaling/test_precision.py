"""Models of 16 bits: parameters, loss and sums in 32, activations rounded where they are edited."""

from __future__ import annotations

import pytest
import torch

from helpers.activation_scaling import attribution as attr
from helpers.activation_scaling.dynamic import DynScalar
from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar, SteerVec, steered_logits
from helpers.activation_scaling.objective import Objective, faithfulness, logit_diff
from helpers.activation_scaling.points import Points
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts
from tests.conftest import ARCHITECTURES, random_model

pytestmark = pytest.mark.unit
OBJECTIVE = Objective(margin=1.0, lambda_f=0.1, lambda_m=0.01)
DTYPES = (torch.bfloat16, torch.float16)


@pytest.fixture(scope="module", params=["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def architecture(request) -> str:
    assert request.param in ARCHITECTURES
    return request.param


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def pair(request, architecture, tokenizer):
    """A model of 16 bits, and one of 64 with the same weights."""
    models = []
    for dtype in (request.param, torch.float64):
        models.append(random_model(architecture, tokenizer, through=request.param, dtype=dtype))
    return models


def prompts_of(model) -> Prompts:
    return Prompts.of(model, ["w1 w2 w3", "w1 w5 w6"], ["w10", "w11"], ["w13", "w14"])


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec, DynScalar])
@pytest.mark.slow
def test_a_fit_has_parameters_of_32_bits_and_follows_that_of_the_wide_model(pair, kind):
    histories = []
    for model in pair:
        prompts = prompts_of(model)
        intervention = kind(Points.of(model, None if kind is DynScalar else prompts.n_pos))
        how = {"learning_rate": 1e-2, "epochs": 4, "seed": 3, "initial_std": 0.05}
        histories.append(fit(model, intervention, prompts, OBJECTIVE, **how).history)
        assert intervention.vec().dtype == torch.float32
        assert intervention.vec().isfinite().all()
    for narrow, wide in zip(*histories):
        assert narrow == pytest.approx(wide, rel=0.05, abs=0.05)
    assert histories[0][0]["M_1"] == pytest.approx(histories[1][0]["M_1"], rel=1e-6)


def test_strength_0_changes_no_bit_and_an_edit_keeps_the_precision_of_the_model(pair):
    model = pair[0]
    prompts = prompts_of(model)
    vectors = SteerVec(Points.of(model, prompts.n_pos))
    vectors.reset(0, 0.5)
    none, some = steered_logits(model, prompts.tokens, vectors, [0.0, 1.0])
    assert none.dtype == some.dtype == model.W_U.dtype
    base = last_logits(model, prompts.tokens.repeat(2, 1))[:2]
    assert torch.equal(none, base) and not torch.equal(some, base)


def test_measures_of_the_same_logits_do_not_depend_on_the_precision():
    plus, minus, base = torch.randn(3, 4, 5000, generator=torch.Generator().manual_seed(0)) * 3
    for dtype in DTYPES:
        narrow = [logits.to(dtype) for logits in (plus, minus, base)]
        wide = [logits.float() for logits in narrow]
        assert faithfulness(*narrow).item() == faithfulness(*wide).item()
        answers = torch.arange(4), torch.arange(4) + 9
        assert logit_diff(narrow[0], *answers).equal(logit_diff(wide[0], *answers))


def test_maps_are_those_of_the_wide_model_up_to_rounding(pair):
    maps = []
    for model in pair:
        prompts = prompts_of(model)
        points = Points.of(model, prompts.n_pos)
        other = attr.activations(model, prompts.tokens.flip(0), points)
        found = [attr.activ_patch(model, prompts, points, other)]
        found += [attr.attr_patch(model, prompts, points, other)]
        found += [attr.direct_logit(model, prompts, points)]
        maps.append([torch.stack(list(map_.values())) for map_ in found])
    for narrow, wide in zip(*maps):
        assert narrow.dtype == torch.float32
        torch.testing.assert_close(narrow.double(), wide, rtol=0.1, atol=0.05)
        assert wide.abs().max() > 0.1

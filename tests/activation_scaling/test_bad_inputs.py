"""Arguments that make no sense are refused in a sentence that names them, before the model runs."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from helpers.activation_scaling import attribution as attr
from helpers.activation_scaling.controls import one_by_one, permuted
from helpers.activation_scaling.fitting import FitJob, fit, fit_many
from helpers.activation_scaling.interventions import ActivScalar, SteerVec, steered_logits
from helpers.activation_scaling.objective import (
    Evaluation,
    Objective,
    effectiveness,
    evaluate,
    faithfulness,
)
from helpers.activation_scaling.points import Points
from helpers.activation_scaling.together import evaluate_many
from helpers.prompts.prompts import Prompts

pytestmark = pytest.mark.unit
NAN, INF = float("nan"), float("inf")
TOKENS = torch.arange(1, 7).view(2, 3)

# What each argument may not be, and what the message says.
POINTS = [
    ({"layers": [1.5]}, "layer = 1.5"),
    ({"layers": [2]}, "layer = 2"),
    ({"layers": [True]}, "layer = True"),
    ({"layers": []}, "no layer"),
    ({"layers": [0, -2]}, "a layer is given twice"),
    ({"positions": [0.0]}, "position = 0.0"),
    ({"positions": [NAN]}, "position = nan"),
    ({"positions": [-4]}, "position = -4"),
    ({"positions": []}, "no position"),
    ({"sites": []}, "no site"),
    ({"sites": ["attn"]}, "unknown site 'attn'"),
    ({"sites": ["z", "head_out"]}, "same place"),
    ({"n_pos": 3.0}, "n_pos = 3.0"),
    ({"n_pos": 0}, "n_pos = 0"),
    ({"n_pos": None, "positions": [0]}, "give n_pos"),
]
FITS = [
    ({"learning_rate": 0.0}, "learning_rate = 0.0"),
    ({"learning_rate": -1.0}, "learning_rate = -1.0"),
    ({"learning_rate": NAN}, "learning_rate = nan"),
    ({"learning_rate": INF}, "learning_rate = inf"),
    ({"epochs": 0}, "epochs = 0"),
    ({"epochs": -1}, "epochs = -1"),
    ({"epochs": 2.5}, "epochs = 2.5"),
    ({"batch_size": 0}, "batch_size = 0"),
    ({"batch_size": -1}, "batch_size = -1"),
    ({"batch_size": 1.0}, "batch_size = 1.0"),
    ({"seed": -1}, "seed = -1"),
    ({"seed": 0.5}, "seed = 0.5"),
    ({"initial_std": NAN}, "initial_std = nan"),
    ({"initial_std": -1.0}, "initial_std = -1.0"),
]
OBJECTIVES = [{"margin": -1}, {"lambda_f": -0.1}, {"lambda_m": NAN}, {"margin": INF}]
BETAS = [([], "list of strengths"), ([NAN], "nan"), ([1.0, INF], "inf"), (1.0, "or list, not 1.0")]
SIZES = [0, -1, 1.5]


@pytest.fixture
def model(tiny, monkeypatch):
    """A model that must not be run."""

    def run(*args, **kwargs):
        raise AssertionError("the model was run")

    monkeypatch.setattr(type(tiny.original_model), "forward", run)
    return tiny


@pytest.fixture
def prompts(tiny) -> Prompts:
    return Prompts.of(tiny, ["w1 w2", "w3 w4"], ["w5", "w6"], ["w7", "w8"])


def scalars_of(model) -> ActivScalar:
    return ActivScalar(Points.of(model, 3), dtype=torch.float64)


def refused(match: str, work) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        work()


@pytest.mark.parametrize(("bad", "match"), POINTS)
def test_points(model, bad, match):
    refused(match, partial(Points.of, model, **{"n_pos": 3, **bad}))


@pytest.mark.parametrize(("bad", "match"), FITS)
def test_options_of_a_fit(model, prompts, bad, match):
    how = {"learning_rate": 0.01, **bad}
    refused(match, partial(fit, model, scalars_of(model), prompts, Objective(), **how))


@pytest.mark.parametrize("bad", OBJECTIVES)
def test_weights_of_the_objective(bad):
    refused(next(iter(bad)), partial(Objective, **bad))


@pytest.mark.parametrize(("betas", "match"), BETAS)
def test_strengths(model, betas, match):
    refused(match, partial(steered_logits, model, TOKENS, scalars_of(model), betas))


def test_one_strength_for_all_prompts(model):
    for beta in (NAN, INF, torch.tensor([1.0, NAN])):
        refused("must be finite", scalars_of(model).applied(model, beta).__enter__)


@pytest.mark.parametrize("size", SIZES)
def test_batch_sizes(model, prompts, size):
    scalars, named = scalars_of(model), f"batch_size = {size}"
    how = {"batch_size": size}
    refused(named, partial(steered_logits, model, TOKENS, scalars, [1.0], **how))
    refused(named, partial(evaluate, model, scalars, prompts, **how))
    refused(named, partial(evaluate_many, model, [(scalars, prompts)], **how))
    refused(named, partial(attr.activ_patch, model, prompts, scalars.points, {}, **how))


def test_no_prompts_and_prompts_of_another_length(model, prompts):
    longer, scalars = SteerVec(Points.of(model, 9), dtype=torch.float64), scalars_of(model)
    how = {"objective": Objective(), "learning_rate": 0.01}
    refused("tokens, and this one has 3", partial(fit, model, longer, prompts, **how))
    none = prompts.tokens[:0], prompts.correct[:0], prompts.wrong[:0]
    empty = Prompts((), (), (), *none)
    refused("no prompts", partial(fit, model, scalars, empty, **how))
    refused("tokens is empty", partial(steered_logits, model, empty.tokens, scalars, [1.0]))
    refused("at least one prompt|is empty", partial(evaluate, model, scalars, empty))


LOGITS = torch.linspace(-1, 1, 14, dtype=torch.float64).view(2, 7)
ANSWERS = torch.tensor([1, 2]), torch.tensor([3, 4])
NO_LOGITS = (LOGITS * NAN, LOGITS[:0], LOGITS[:, :6], LOGITS[:1], LOGITS.long(), None, [[1.0]])


@pytest.mark.parametrize("bad", NO_LOGITS)
def test_logits(bad):
    theta = torch.ones(3, dtype=torch.float64)
    refused("base", partial(faithfulness, LOGITS, LOGITS, bad))
    refused("base", partial(Evaluation.of, theta, LOGITS, LOGITS, bad, *ANSWERS))
    refused("minus", partial(effectiveness, LOGITS, bad, *ANSWERS))
    terms = partial(Objective().terms, theta)
    refused("minus", partial(terms, LOGITS, bad, LOGITS, *ANSWERS))
    refused("empty", partial(faithfulness, *[LOGITS[:0]] * 3))
    refused("theta", partial(Evaluation.of, theta * NAN, LOGITS, LOGITS, LOGITS, *ANSWERS))


def test_what_else_a_fit_or_a_control_cannot_take(model, prompts):
    scalars, how = scalars_of(model), {"learning_rate": 0.01}
    for name, bad in {
        "objective": Objective,
        "prompts": prompts.tokens,
        "intervention": None,
    }.items():
        given = {"intervention": scalars, "prompts": prompts, "objective": Objective()} | {
            name: bad
        }
        refused(f"{name} must be", partial(fit, model, **given, **how))
    job = FitJob(scalars, Objective(), prompts, 0.01)
    for bad in (0, -1, 1.5):
        refused(f"at_once = {bad}", partial(fit_many, model, [job], at_once=bad))
    for bad in (-1, 1.5, None):
        refused(f"seed = {bad}|seed must be", partial(permuted, LOGITS, bad))
    for bad in (2, -3, 0.5):
        refused(f"dim = {bad}", partial(permuted, LOGITS, 0, dim=bad))
    for bad in (NAN, -1.0, None):
        refused(f"least = {bad}", partial(one_by_one, scalars, bad))
    for bad in (torch.int64, "float32"):
        refused("dtype", partial(ActivScalar, scalars.points, dtype=bad))
    refused("points must be Points", partial(ActivScalar, None))
    refused("unknown site", partial(scalars.points.heads, "attn"))
    for bad in ("x", [None], [[1.0], 2.0]):
        refused("beta", scalars.applied(model, bad).__enter__)
    own = attr.as_scalars({site: torch.ones(2, 3) for site in scalars.theta}, scalars.points)
    refused(
        "has shape", partial(attr.as_scalars, {s: torch.ones(1, 3) for s in own.theta}, own.points)
    )


@pytest.mark.parametrize("bad", [{"std": NAN}, {"std": -1.0}, {"seed": -1}, {"seed": 1.5}])
def test_noise(model, prompts, bad):
    points = Points.of(model, 3)
    name, value = next(iter(bad.items()))
    refused(f"{name} = {value}", partial(attr.noised_activations, model, prompts, points, **bad))

"""Prompts of several lengths in one batch: right at each prompt's own end, or refused.

Every public function of the helpers that takes prompts or tokens is in one of the tables below.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pkgutil import walk_packages

import pytest
import torch

import helpers
from helpers.activation_scaling import ascent, attribution, fitting, objective, recorded, together
from helpers.activation_scaling.dynamic import DynScalar
from helpers.activation_scaling.interventions import ActivScalar, steered_logits
from helpers.activation_scaling.points import Points
from helpers.models import direct, run, tokens
from helpers.models.prefix import Prefix, Runs
from helpers.models.resume import Run
from helpers.models.tokens import PAD, ends, resolve_position, token_strings
from helpers.observable_propagation.edits import edited, steer
from helpers.observable_propagation.gradients import stream_gradients
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.paths import path, reading
from helpers.prompts import prompts as prompt_sets
from helpers.prompts.answers import answer_ranks, answer_table
from helpers.prompts.cases import counterfactual
from helpers.prompts.prompts import Prompts
from helpers.ruler.instruction import InFront
from helpers.ruler.relevance import gradient_maps
from tests.conftest import mixed

pytestmark = pytest.mark.unit
NAME = "blocks.1.hook_resid_post"
OBJECTIVE = objective.Objective(margin=1.0, lambda_f=0.5, lambda_m=0.1)


@pytest.fixture(scope="module")
def batch(tiny) -> Prompts:
    """Prompts of 6, 4 and 3 tokens, padded."""
    texts = ["w1 w2 w3 w4 w5", "w6 w7 w8", "w9 w1"]
    return mixed(tiny, texts, ["w6", "w7", "w20"], ["w8", "w9", "w21"])


def alone(prompts: Prompts) -> list[Prompts]:
    """Each prompt by itself, without padding."""
    each = [prompts.at([i]) for i in range(len(prompts))]
    return [replace(one, tokens=one.tokens[:, one.tokens[0] != PAD]) for one in each]


def vectors(model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, model.cfg.d_model, generator=generator, dtype=torch.float64)


def dynamic(model) -> DynScalar:
    scalars = DynScalar(Points.of(model, None), dtype=torch.float64)
    scalars.reset(0, 0.5)
    return scalars


def attributed(model, prompts):
    answers = direct.logit_diff_vector(model, prompts.correct, prompts.wrong)
    parts = direct.direct_attribution(model, prompts.tokens, *answers, batch_size=2)
    return torch.cat([parts.heads.sum(-1).flatten(1), parts.mlps, parts.embedding[:, None]], 1)


def patched(model, prompts, **how):
    tokens = prompts.tokens
    other = torch.where(tokens > 0, (tokens + 20) % 100, tokens)  # PAD and the first token stay
    observable = Observable.of(model, {"w3": 1, "w5": -1})
    return path_patching(model, tokens, other, observable, batch_size=2, **how)


def with_edit(model, prompts, where):
    if where is ends:
        where = ends(prompts.tokens)
    with edited(model, 1, where, lambda x: x + vectors(model)[0]):
        return run.last_logits(model, prompts.tokens)


def of_each(function: Callable, model, prompts):
    """A function of one prompt's tokens, padded as they are in the batch."""
    return torch.stack([function(model, row) for row in prompts.tokens])


def read_path(model, row):
    found = reading(model, path(model, "0.1 → 1.2"), row, [1, -1, -1])
    return torch.stack([found.points["ln_final"], found.points["blocks.1.ln1"]]) * found.score


def scalars_of(model, row):
    alpha = dynamic(model).alpha(model, row)["mlp_out"]
    assert alpha.shape[1] == (row != PAD).sum(), "scalars of padding"
    return alpha[:, -1]


def numbers_of(model, row):
    return torch.tensor([int(text.strip("w<bos>") or 0) for text in token_strings(model, row)[-2:]])


def jobs(model, prompts):
    return [fitting.FitJob(dynamic(model), OBJECTIVE, prompts, 1e-2, initial_std=0.5)]


def first_step(fit: Callable, model, prompts):
    """The objective's terms before the first step."""
    found = fit(model, prompts).history[0]
    return torch.tensor([[found[name] for name in ("E_m", "F", "M_1", "psi")]]).double()


def fit(model, prompts):
    how = {"learning_rate": 1e-2, "epochs": 1, "initial_std": 0.5}
    return fitting.fit(model, dynamic(model), prompts, OBJECTIVE, **how)


def measures(evaluation) -> torch.Tensor:
    return torch.tensor([[evaluation.E0, evaluation.F, evaluation.swapped]]).double()


def steered(model, prompts):
    (found,) = together.steer_each(model, [(dynamic(model), prompts)])
    return found.transpose(0, 1)


def in_parts(model, prompts):
    runs, rows = Runs.of(model, prompts.tokens, 0), torch.arange(len(prompts))
    return together.logits_together(model, [dynamic(model)], runs, rows[None])[0].transpose(0, 1)


def ranks(model, prompts):
    return torch.tensor(answer_ranks(model, prompts).iloc[:, 1:].to_numpy(float))


def in_front(model, prompts):
    edit = InFront((torch.tensor([7, 8]), torch.tensor([9, 10])), 2, 2)
    return edit.logits(model, prompts, None, [-1.0])[0]


# Function, and after a comma what varies -> a row for each prompt.
WAYS = {
    "last_logits": lambda model, p: run.last_logits(model, p.tokens),
    "read_activations": lambda model, p: run.read_activations(model, p.tokens, [])[1],
    "read_activations, where prompts end": lambda model, p: tokens.at_ends(
        run.read_activations(model, p.tokens, [NAME], batch_size=2)[0][NAME], p.tokens
    ),
    "direct_attribution": attributed,
    "path_patching": patched,
    "path_patching, values": partial(patched, values_only=True),
    "edits.steer": lambda model, p: steer(model, p.tokens, 1, -1, vectors(model)).transpose(0, 1),
    "edits.steer, second last": lambda model, p: steer(model, p.tokens, 0, -2, vectors(model))[0],
    "edited": partial(with_edit, where=ends),
    "edited, last": partial(with_edit, where=-1),
    "edited, second": partial(with_edit, where=1),
    "edited, behind the first": partial(with_edit, where=slice(1, None)),
    "reading": partial(of_each, read_path),
    "Dynamic.alpha": partial(of_each, scalars_of),
    "token_strings": partial(of_each, numbers_of),
    "steered_logits": lambda model, p: steered_logits(
        model, p.tokens, dynamic(model), [1.0, -2.0], batch_size=2
    ).transpose(0, 1),
    "base_logits": lambda model, p: objective.base_logits(model, p.tokens, 2),
    "base_diff": objective.base_diff,
    "steer_each": steered,
    "logits_together": in_parts,
    "answer_ranks": ranks,
    "join": lambda model, p: run.last_logits(model, prompt_sets.join([p]).tokens),
    "InFront.logits": in_front,
}
# The same, but one row for all prompts: their mean.
MEANS = {
    "fit": partial(first_step, fit),
    "fit_many": partial(
        first_step, lambda model, p: fitting.fit_many(model, jobs(model, p), epochs=1).results[0]
    ),
    "fit_or_read": partial(
        first_step,
        lambda model, p: recorded.fit_or_read(model, jobs(model, p), "none.safetensors", epochs=1)[
            0
        ],
    ),
    "fit_batch": partial(
        first_step, lambda model, p: ascent.fit_batch(model, jobs(model, p), 1)[0]
    ),
    "answer_table": lambda model, p: torch.tensor(
        answer_table(model, {"": p})[["correct first", "mean p, correct", "mean p, wrong"]].values
    ),
    "evaluate": lambda model, p: measures(objective.evaluate(model, dynamic(model), p)),
    "evaluate_many": lambda model, p: measures(
        together.evaluate_many(model, [(dynamic(model), p)])[0]
    ),
}


def scaled(model, prompts):
    with ActivScalar(Points.of(model, prompts.n_pos)).applied(model, 1.0):
        run.last_logits(model, prompts.tokens)


def attribute(function: Callable, model, prompts, *more):
    points = Points.of(model, prompts.n_pos, positions=[-1])
    return function(model, prompts, points, *more)


REFUSED = {
    "activations": lambda model, p: attribution.activations(
        model, p.tokens, Points.of(model, p.n_pos)
    ),
    "noised_activations": partial(attribute, attribution.noised_activations),
    "activ_patch": lambda model, p: attribute(attribution.activ_patch, model, p, {}),
    "attr_patch": lambda model, p: attribute(attribution.attr_patch, model, p, {}),
    "direct_logit": partial(attribute, attribution.direct_logit),
    "gradient_maps": lambda model, p: gradient_maps(model, p, Points.of(model, p.n_pos)),
    "Intervention.applied": scaled,
    "Prefix.run": lambda model, p: Prefix.run(model, p.tokens),
    "Run.of": lambda model, p: Run.of(model, p.tokens),
    "edited, from the end": partial(with_edit, where=slice(-2, None)),
    "edited, up to the end": partial(with_edit, where=slice(1, -1)),
    "counterfactual": counterfactual,
    "stream_gradients": lambda model, p: stream_gradients(
        model, p.tokens, [Observable.of(model, {"w1": 1, "w2": -1})], [-1]
    ),
    "check_one_length": lambda model, p: tokens.check_one_length(p.tokens),
}
# Inner parts of the above, what holds or describes prompts, takes ids of single tokens, or runs one
# prompt of its own.
OTHERS = {
    "recorded.facts_of", "recorded.write", "Runs.of", "Prefix.last_logits", "last_logits_after",
    "Intervention.check_tokens", "check_tokens", "ends", "at_ends", "is_padded", "resolve_position",
    "tokenize", "in_words", "token_bars",
    "largest_batch", "rows_of", "step", "continuation", "show_map", "steering.steer",
    "side_by_side", "token_vectors", "unembed", "resumed_logits", "shared_start", "Edit.logits",
    "gained", "told", "Seen.observables",
}  # fmt: skip


def public() -> Iterator[str]:
    """Public functions and methods of the helpers that take prompts or tokens."""
    for found in walk_packages(helpers.__path__, "helpers."):
        module = import_module(found.name)
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            inside = vars(thing) if inspect.isclass(thing) else {}
            functions = {f"{name}.{key}": value for key, value in inside.items()} or {name: thing}
            for label, function in functions.items():
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function) and "._" not in label and takes_prompts(function):
                    yield f"{found.name.split('.')[-1]}.{label}"


def takes_prompts(function: Callable) -> bool:
    kinds = ("Prompts", "FitJob", "Runs", "Case")
    for name, parameter in inspect.signature(function).parameters.items():
        kind = str(parameter.annotation)
        tokens = "Int[Tensor" in kind and "pos" in kind
        if tokens or name in ("prompts", "tokens") or any(part in kind for part in kinds):
            return True
    return False


def test_every_public_function_that_takes_prompts_is_in_a_table():
    listed = {name.split(",")[0] for name in (*WAYS, *MEANS, *REFUSED)} | OTHERS
    found = set(public())
    unlisted = [name for name in found if not {name, name.split(".", 1)[1]} & listed]
    assert len(found) > 40 and not unlisted


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_a_padded_batch_gives_what_each_prompt_gives_alone(tiny, batch, way):
    together = WAYS[way](tiny, batch)
    for one, ours in zip(alone(batch), together, strict=True):
        theirs = WAYS[way](tiny, one)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6, equal_nan=True)
    assert not torch.allclose(together[0], together[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("way", MEANS)
@pytest.mark.slow
def test_a_padded_batch_gives_the_mean_of_its_prompts(tiny, batch, way):
    each = torch.cat([MEANS[way](tiny, one) for one in alone(batch)])
    torch.testing.assert_close(MEANS[way](tiny, batch)[0], each.mean(0), rtol=1e-5, atol=2e-6)
    assert not torch.allclose(each[0], each[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("way", REFUSED)
def test_what_is_tied_to_positions_refuses_prompts_of_several_lengths(tiny, batch, way):
    with pytest.raises(ValueError, match="one length|unequal lengths|several lengths"):
        REFUSED[way](tiny, batch)


# But for two that take one prompt's tokens and leave out padding, wherever it is.
@pytest.mark.parametrize("way", sorted({*WAYS, *MEANS} - {"token_strings", "Dynamic.alpha"}))
def test_padding_on_the_left_is_refused(tiny, batch, way):
    left = torch.stack([row.roll(int((row == PAD).sum())) for row in batch.tokens])
    with pytest.raises(ValueError, match="on the right"):
        {**WAYS, **MEANS}[way](tiny, replace(batch, tokens=left))


def test_activations_at_a_prompts_own_positions_are_those_of_the_prompt_alone(tiny, batch):
    together = run.read_activations(tiny, batch.tokens, [NAME], batch_size=2)[0][NAME]
    for one, ours in zip(alone(batch), together):
        theirs = run.read_activations(tiny, one.tokens, [NAME])[0][NAME][0]
        torch.testing.assert_close(ours[: one.n_pos], theirs, rtol=1e-5, atol=1e-6)


def test_positions_are_counted_in_each_prompt_and_must_be_in_all(tiny, batch):
    assert resolve_position(batch.tokens, -1).tolist() == ends(batch.tokens).tolist() == [5, 3, 2]
    assert resolve_position(batch.tokens, 1).tolist() == [1, 1, 1]
    for position in (3, -4):
        with pytest.raises(ValueError, match=f"position = {position} must be -3 to 2"):
            steer(tiny, batch.tokens, 0, position, vectors(tiny))
        with pytest.raises(ValueError, match=f"position = {position} must be -3 to 2"):
            with_edit(tiny, batch, position)
    with pytest.raises(ValueError, match="must match one to one"):
        observable = Observable.of(tiny, {"w3": 1})
        path_patching(tiny, batch.tokens[:1], batch.tokens[1:2], observable)

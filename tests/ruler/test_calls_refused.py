"""Bad arguments of the ruler and of what it stands on, refused in a sentence; none passes silently.

Each of these once gave a number without a word, or an error from inside a library.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch

from helpers.activation_scaling.attribution import as_scalars
from helpers.activation_scaling.controls import shuffled
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.objective import effectiveness, logit_diff
from helpers.activation_scaling.points import Points
from helpers.models.load import load_model, resolve_device
from helpers.models.run import last_logits
from helpers.models.tokens import token_strings
from helpers.prompts.prompts import Prompts
from helpers.ruler.axes import Bench, damaged, gained
from helpers.ruler.edits import HeadGates, ToldVec, last_points
from helpers.ruler.export import as_steering_vector, attach
from helpers.ruler.instruction import InFront
from helpers.ruler.learned import carried
from helpers.ruler.methods import Seen, constant, told
from helpers.ruler.table import compared, layers_of, table_of
from helpers.ruler.vectors import RandomDirection
from tests.ruler.small import small_task, three_layers
from tests.sentences import refused

pytestmark = pytest.mark.unit
NAN = float("nan")
UNITS = pd.DataFrame(
    {"task": ["t"], "seed": 0, "method": "a", "budget": 0.1, "E0": 0.0, "F": 0.0, "kl": 0.0}
)


@pytest.fixture(scope="module")
def given(tokenizer) -> dict:
    model = three_layers(tokenizer)
    task, points = small_task(model), Points.of(model, 4)
    logits = last_logits(model, task.train.tokens)
    both = torch.stack([logits, logits])
    return {"model": model, "task": task, "points": points, "logits": logits, "both": both}


def ones(n: int) -> torch.Tensor:
    return torch.ones(n, 32, dtype=torch.float64)


def seen(given: dict) -> Seen:
    return Seen(given["model"], given["task"], epochs=1, n_texts=18)


def in_front(prompts: Prompts) -> InFront:
    return InFront((prompts.correct, prompts.wrong), 1, 1)


def maps(points: Points, value: float) -> dict:
    return {site: torch.full((3, 4), value) for site in points.sites}


CALLS: dict[str, Callable] = {
    "answers of another number": lambda g, p: logit_diff(g["logits"], p.correct[:2], p.wrong),
    "answers that are no ids": lambda g, p: logit_diff(g["logits"], p.correct.double(), p.wrong),
    "no such id": lambda g, p: logit_diff(g["logits"], p.correct + 1000, p.wrong),
    "margin NaN": lambda g, p: effectiveness(*g["both"], p.correct, p.wrong, NAN),
    "margin −1": lambda g, p: effectiveness(*g["both"], p.correct, p.wrong, -1.0),
    "seed −1": lambda g, p: shuffled(ActivScalar(g["points"]), -1),
    "seed 1.5": lambda g, p: shuffled(ActivScalar(g["points"]), 1.5),
    "no map": lambda g, p: as_scalars({}, g["points"]),
    "a map of NaN": lambda g, p: as_scalars(maps(g["points"], NAN), g["points"]),
    "a list of ids": lambda g, p: token_strings(g["model"], [1, 2]),
    "ids as floats": lambda g, p: token_strings(g["model"], torch.tensor([5.0])),
    "an id that is not there": lambda g, p: token_strings(g["model"], torch.tensor([5, 9999])),
    "a device without numbers": lambda g, p: resolve_device("meta"),
    "one sign": lambda g, p: gained(g["both"][:1], g["logits"], p),
    "other prompts": lambda g, p: gained(g["both"], g["logits"], p.at([0])),
    "logits that are NaN": lambda g, p: gained(g["both"] * NAN, g["logits"], p),
    "one token for all": lambda g, p: damaged(g["both"], g["logits"], p.correct[:1]),
    "a text of no token": lambda g, p: g["task"].neutral(3, 0, held_out=True),
    "no text": lambda g, p: g["task"].neutral(0, 5, held_out=True),
    "no β": lambda g, p: attach(g["model"].original_model, {"a/add": torch.ones(3)}, None),
    "no tensors": lambda g, p: attach(g["model"].original_model, {}, 1.0),
    "several positions": lambda g, p: as_steering_vector(
        SteerVec(Points.of(g["model"], 4, sites=["resid_post"]))
    ),
    "a task for a list": lambda g, p: table_of(g["model"], folder=None, tasks="IOI"),
    "vectors at two sites": lambda g, p: ToldVec(Points.of(g["model"], 4, positions=[-1]), ones(4)),
    "vectors in two layers": lambda g, p: ToldVec(last_points(g["model"], 4, None), ones(4)),
    "a vector for two": lambda g, p: told(seen(g), 1, lambda some: ones(len(some) - 1)),
    "vectors of another width": lambda g, p: told(seen(g), 1, lambda some: ones(len(some))[:, :5]),
    "a layer that is not there": lambda g, p: constant(seen(g), 9, ones(1)[0]),
    "a stream that is not there": lambda g, p: seen(g).stream(-1),
    "tensors that are NaN": lambda g, p: attach(
        g["model"].original_model, {"model.layers.0/add": torch.ones(32) * NAN}, 1.0
    ),
    "no next token": lambda g, p: damaged(g["both"], g["logits"], p.correct + 1000),
    "padding as next token": lambda g, p: damaged(g["both"], g["logits"], p.correct * 0 - 1),
    "instruction at β NaN": lambda g, p: in_front(p).logits(g["model"], p, None, [NAN]),
    "one instruction": lambda g, p: InFront((p.correct,), 1, 1),
    "gates of no heads": lambda g, p: HeadGates(last_points(g["model"], 4, None, "attn_out")),
    "an edit everywhere": lambda g, p: carried(g["model"], ActivScalar(g["points"]), 1),
    "no number of layers": lambda g, p: layers_of(RandomDirection(), NAN),
    "a table without F": lambda g, p: compared(UNITS.drop(columns="F"), UNITS),
    "n_texts NaN": lambda g, p: Seen(g["model"], g["task"], 1, NAN),
    "β as text": lambda g, p: Bench(g["model"], p).both(in_front(p), ["1"]),
    "no list of β": lambda g, p: Bench(g["model"], p).both(in_front(p), None),
    "no edit": lambda g, p: Bench(g["model"], p).both(None, [1.0]),
    "no name of a model": lambda g, p: load_model(None),
    "no seed": lambda g, p: table_of(g["model"], folder=None, seeds=[]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_says_nothing_is_refused(given: dict, name: str) -> None:
    refused(CALLS[name], given, given["task"].train)

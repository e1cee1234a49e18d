"""Bad arguments of public functions are refused in a sentence, not by an error of torch's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from typing import get_type_hints

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

import helpers
from helpers.models import blocks, checks
from helpers.models.direct import (
    direct_attribution,
    logit_diff_vector,
    readout,
    token_vectors,
)
from helpers.models.formulas import require
from helpers.models.norms import Norm
from helpers.models.prefix import Prefix, Runs
from helpers.models.resume import Run
from helpers.models.run import last_logits, read_activations, unembed
from helpers.models.tokens import at_ends, encode_prompt, is_single, single_token, tokenize
from helpers.observable_propagation import features, heads, paths, pull_back, search
from helpers.observable_propagation.controls import (
    observable_pairs,
    random_observables,
    with_cosine,
)
from helpers.observable_propagation.coupling import best_fit, cosine, coupling
from helpers.observable_propagation.edits import (
    Erasure,
    edited,
    leace,
    least_norm,
    mean_difference,
    projection,
    steer,
)
from helpers.observable_propagation.gradients import stream_gradients
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import direct_effects, path_patching
from helpers.prompts.answers import answer_ranks
from helpers.prompts.prompts import Prompts
from helpers.prompts.tasks import make_task
from tests.conftest import random_model
from tests.sentences import refused

pytestmark = pytest.mark.unit
T = torch.arange(1, 15).view(2, 7)
WIDTH, NAN = 32, float("nan")
V = torch.linspace(-1, 1, 3 * WIDTH, dtype=torch.float64).view(3, WIDTH)
ONE = V[0]
GENERATOR = torch.Generator()


def prompts(model) -> Prompts:
    return Prompts.of(model, ["w1", "w2"], ["w3", "w4"], ["w5", "w6"])


def n(model) -> Observable:
    return Observable.of(model, {"w3": 1, "w5": -1})


def run_edited(model, layer, where, edit=lambda x: x):
    with edited(model, layer, where, edit):
        last_logits(model, T)


def score(found, layer, chain):
    return found.norm(dim=-1)


def final(model) -> Norm:
    return Norm.of(model, "ln_final")


def searched(model, **how):
    return search.search_paths(model, ONE, score, **how)


WHOLE = (1.0, True, "1", None, NAN)  # no whole numbers
SIZES = (0, -1, *WHOLE)
TEXTS = (None, 3, b"w1", ["w1"], "w1 \ud800")
VECTORS = (V[:, :5], V.long(), V.tolist(), None, V * NAN, V / 0, V[:0], torch.tensor(1.0))
TOKENS = (T.double(), T.bool(), T.tolist(), None, "w1", T[0], T[None], T[:0], T[:, :0], T + 100)
TOKENS += (torch.ones(1, 65).long(), *(torch.tensor(row) for row in ([[-1, 1]], [[1, -1, 2]])))
TOKENS += (torch.tensor([[101]]), torch.tensor([[0, -2]]), torch.tensor([[-1, -1], [0, 1]]))
POSITIONS, LAYERS = (7, -8, *WHOLE), (3, -1, *WHOLE)
LINES = ([[1.0, 2.0]], [1.0, 2.0], [[NAN, 1.0], [1.0, 2.0]], [[1.0, 1.0]] * 2, "ab", [[], []])
GROUPS = (torch.tensor([1, 0, 1]), torch.tensor([True]), [True, False, True], None)

# Bad values of an argument, and the calls that take it.
TABLE: list[tuple[tuple, dict[str, Callable]]] = [
    (
        TOKENS,
        {
            "last_logits": last_logits,
            "read_activations": lambda m, bad: read_activations(m, bad, []),
            "direct_attribution": lambda m, bad: direct_attribution(m, bad, ONE),
            "path_patching": lambda m, bad: path_patching(m, bad, bad, n(m)),
            "steer": lambda m, bad: steer(m, bad, 0, -1, V),
            "Run.of": Run.of,
            "Runs.of": lambda m, bad: Runs.of(m, bad, 0),
            "Prefix.run": Prefix.run,
        },
    ),
    (
        SIZES,
        {
            "read_activations": lambda m, bad: read_activations(m, T, [], batch_size=bad),
            "direct": lambda m, bad: direct_attribution(m, T, ONE, batch_size=bad),
            "path_patching": lambda m, bad: path_patching(m, T, T, n(m), batch_size=bad),
            "steer": lambda m, bad: steer(m, T, 0, -1, V, batch_size=bad),
            "Run.of": lambda m, bad: Run.of(m, T, batch_size=bad),
            "Run.steered": lambda m, bad: Run.of(m, T).steered(m, 0, 1, V, batch_size=bad),
            "answer_ranks": lambda m, bad: answer_ranks(m, prompts(m), batch_size=bad),
            "make_task": lambda m, bad: make_task(m, "IOI", n_train=bad),
            "max_length": lambda m, bad: searched(m, max_length=bad),
            "keep": lambda m, bad: searched(m, keep=bad),
            "random_observables": lambda m, bad: random_observables(m, bad, GENERATOR),
            "observable_pairs": lambda m, bad: observable_pairs(m, bad, 0.5, GENERATOR),
            "best_fit": lambda m, bad: best_fit(V, V, n_resamples=bad),
        },
    ),
    (
        POSITIONS,
        {
            "steer": lambda m, bad: steer(m, T, 0, bad, V),
            "edited": lambda m, bad: run_edited(m, 0, bad),
            "Run.edited": lambda m, bad: Run.of(m, T).edited(m, 0, bad, lambda x: x),
            "reading": lambda m, bad: paths.reading(m, paths.path(m, "0.1"), T[0], [bad, 6]),
        },
    ),
    (
        LAYERS,
        {
            "steer": lambda m, bad: steer(m, T, bad, -1, V),
            "edited": lambda m, bad: run_edited(m, bad, -1),
            "Run.edited": lambda m, bad: Run.of(m, T).edited(m, bad, 1, lambda x: x),
            "ov_svd": features.ov_svd,
            "head_coordinates": features.head_coordinates,
            "through_heads": lambda m, bad: pull_back.through_heads(m, bad, ONE),
            "mlp_gradient": lambda m, bad: pull_back.mlp_gradient(m, bad, V, ONE),
            "path_feature": lambda m, bad: paths.path_feature(m, (paths.Component(bad, 0),), ONE),
        },
    ),
    (
        VECTORS,
        {
            "steer": lambda m, bad: steer(m, T, 0, -1, bad),
            "head_features": features.head_features,
            "head_biases": features.head_biases,
            "path_feature": lambda m, bad: paths.path_feature(m, paths.path(m, "0.1"), bad),
            "search_paths": lambda m, bad: search.search_paths(m, bad, score),
            "direct_attribution": lambda m, bad: direct_attribution(m, T, bad),
            "mlp_output": lambda m, bad: pull_back.mlp_output(m, 0, bad),
            "unembed": unembed,
            "coupling": lambda m, bad: coupling(V, bad),
            "cosine": lambda m, bad: cosine(bad, V),
            "least_norm": lambda m, bad: least_norm(bad, torch.ones(3).double()),
            "projection": lambda m, bad: projection(ONE, bad),
            "leace": lambda m, bad: leace(bad, torch.tensor([True, False]), shrinkage=0.1),
        },
    ),
    (
        TEXTS,
        {
            "single_token": single_token,
            "is_single": is_single,
            "encode_prompt": encode_prompt,
            "tokenize": lambda m, bad: tokenize(m, [bad]),
            "Prompts.of": lambda m, bad: Prompts.of(m, ["w1"], ["w2"], [bad]),
            "path": paths.path,
        },
    ),
    (("", "w1 " * 64), {"encode_prompt": encode_prompt, "tokenize": lambda m, b: tokenize(m, [b])}),
    (((), [], "w1", None), {"tokenize": tokenize, "join": lambda m, b: Prompts.of(m, b, b, b)}),
    (
        (NAN, float("inf"), "1", None, True, torch.ones(2)),
        {
            "weight": lambda m, bad: Observable.of(m, {"w1": bad}),
            "strength": lambda m, bad: projection(ONE, ONE)(V, bad),
            "shrinkage": lambda m, bad: leace(V, torch.tensor([True] * 2 + [False]), shrinkage=bad),
            "cosine": lambda m, bad: observable_pairs(m, 2, bad, GENERATOR),
        },
    ),
    (LINES, {"best_fit": lambda m, bad: best_fit(bad, bad)}),
    (GROUPS, {"mean_difference": lambda m, bad: mean_difference(V, bad)}),
    (
        ([9], [-3], [0.0], [True], [], [[0]], "ab", None),
        {
            "Run.edited": lambda m, bad: Run.of(m, T).edited(m, 0, 1, lambda x: x, bad or []),
            "Prompts.at": lambda m, bad: prompts(m).at(bad or []),
        },
    ),
    (
        (torch.tensor([500]), torch.tensor([-1]), torch.tensor([1.0]), torch.tensor([1, 2])),
        {"logit_diff_vector": lambda m, bad: logit_diff_vector(m, bad, torch.tensor([1]))},
    ),
    (
        (torch.tensor([1]), torch.tensor([1, 9]), torch.tensor([True, False]), [1, 2], None),
        {"edited": lambda m, bad: run_edited(m, 0, bad)},
    ),
    (
        (lambda x: None, lambda x: x[..., :3]),
        {"edit": lambda m, bad: run_edited(m, 0, 1, bad)},
    ),
]
NO_LENGTHS = (NAN, float("inf"), 0.0, -1.0, "1", None, torch.zeros(3, 1).double(), torch.ones(2))
TABLE += [
    (
        VECTORS,
        {
            "Norm.gradient": lambda m, bad: final(m).gradient(bad, ONE),
            "Norm.fixed": lambda m, bad: final(m).fixed(ONE, bad),
            "readout": lambda m, bad: readout(m, bad, ONE),
            "with_cosine": lambda m, bad: with_cosine(V, bad, 0.5),
            "Erasure": lambda m, bad: Erasure(ONE, ONE, bad),
            "measure": lambda m, bad: n(m).measure(bad),
        },
    ),
    (
        (V.float(), V.half()),
        {
            "unembed": unembed,
            "through_heads": lambda m, bad: pull_back.through_heads(m, 0, bad),
            "mlp_output": lambda m, bad: pull_back.mlp_output(m, 0, bad),
            "measure_stream": lambda m, bad: n(m).measure_stream(m, bad),
        },
    ),
    (
        NO_LENGTHS,
        {
            "weighted": lambda m, bad: final(m).weighted(V, bad),
            "NormWeights": lambda m, bad: features.head_features(
                m, V, norms=pull_back.NormWeights({"ln_final": bad})
            ),
        },
    ),
    (
        (None, [1], {"lnfinal": 2.0}, {"blocks.0.ln9": 2.0}),
        {"NormWeights": lambda m, bad: pull_back.NormWeights(bad)},
    ),
    (
        (V * 0, V[:1] * torch.tensor([[2.0]]).double()),
        {"with_cosine, no plane": lambda m, bad: with_cosine(V[:1].expand_as(bad), bad, 0.5)},
    ),
    (
        (T[:1], T[:, :3], T[0], None, T.double()),
        {"at_ends": lambda m, bad: at_ends(torch.ones(2, 7, 4), bad)},
    ),
    ((0, 3, -1, 1.5, None), {"at_ends, axis": lambda m, bad: at_ends(torch.ones(2, 7, 4), T, bad)}),
    (
        (torch.tensor([-1]), torch.tensor([101]), torch.tensor([1.0]), [1], None),
        {"token_vectors": token_vectors},
    ),
    (
        (*POSITIONS, iter([0])),
        {"stream_gradients": lambda m, bad: stream_gradients(m, T, [n(m)], [bad])},
    ),
    (
        ([], iter([]), [None], None, "w1"),
        {"stream_gradients, of": lambda m, bad: stream_gradients(m, T, bad, [0])},
    ),
    (
        ([(2, 0)], [(0, 4)], [(-1, 0)], [(0.5, 0)], [0], [(0, 1, 2)], None),
        {
            "of_heads": lambda m, bad: heads.of_heads(torch.ones(2, 4), bad),
            "listed": lambda m, bad: heads.listed(bad, torch.ones(2, 4), "{} {}"),
        },
    ),
    ((V[:, :0], V * NAN, None, [[1.0]]), {"leading": lambda m, bad: heads.leading(bad, 1)}),
    (
        (slice(9, None), slice(0, 0)),
        {"edited, no token": lambda m, bad: run_edited(m, 0, bad)},
    ),
    (
        (lambda x: None, lambda x: x[..., :3]),
        {"Run.edited, edit": lambda m, bad: Run.of(m, T).edited(m, 0, 1, bad)},
    ),
    (("attention", None, 1), {"norm_before": lambda m, bad: blocks.norm_before(m, 0, bad)}),
    ((2, -1, 1.5), {"norm_after": lambda m, bad: blocks.norm_after(m, bad, "mlp")}),
    (("norm", None), {"require": require}),
    ((T[:1, 3:],), {"Prefix": lambda m, bad: Prefix.run(m, T[:, :3]).last_logits(m, bad)}),
    (
        (None, "name", [], [torch.ones(2, 4, 8)] * 3, [torch.ones(3, 4, 8).double()] * 2),
        {"direct_effects": lambda m, bad: direct_effects(m, n(m), V[:2], bad, {})},
    ),
]
CALLS = [(bad, name, call) for bad, calls in TABLE for name, call in calls.items()]


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model("gpt2", tokenizer)


@pytest.mark.parametrize(("bad", "name", "call"), CALLS, ids=[name for _, name, _ in CALLS])
def test_bad_arguments_are_refused_in_a_sentence(model, bad, name, call):
    for value in bad:
        refused(call, model, value)


def doubled(x: Float[Tensor, "n d"], y: Float[Tensor, "#n d"], n: int | None = 2) -> Tensor:
    return n * x + y


def test_arguments_are_checked_by_their_annotations() -> None:
    call, x = checks.checked(doubled), torch.ones(2, 3)
    assert call(x, x[:1]).equal(doubled(x, x[:1])) and call(x, x, n=torch.tensor(3)) is not None
    for bad in (x[:, :2], torch.ones(3, 3), x[0], x[:0], x.long(), x * NAN, None, [[1.0]]):
        assert refused(call, x, bad).startswith("y ")
    for bad in (1.5, True, "1", torch.ones(2)):
        assert refused(call, x, x, bad).startswith("n ")
    # What a gradient is taken through may be infinite: a fit says so itself.
    assert call(x.requires_grad_(), x / 0).isinf().all()


def test_annotations_of_all_that_is_checked_can_be_read() -> None:
    found = []
    for module in walk_packages(helpers.__path__, "helpers."):
        for thing in vars(import_module(module.name)).values():
            inside = vars(thing).values() if inspect.isclass(thing) else [thing]
            for one in (getattr(each, "__func__", each) for each in inside):
                if "checked" in getattr(getattr(one, "__code__", None), "co_qualname", ""):
                    found.append(get_type_hints(one))
    assert len(found) > 100 and all(found)


def test_checks_pass_what_is_good_as_it_is():
    assert checks.whole("n", torch.tensor(3)) == 3 and checks.whole("n", -2, -2, 3) == -2
    assert checks.real("x", 1) == 1 and checks.real("x", torch.tensor(0.5), 0, 0.5) == 0.5
    assert checks.rows([-1, 0], 3).tolist() == [2, 0] and checks.rows(None, 2).tolist() == [0, 1]
    assert checks.vectors("v", V, WIDTH, axes=2) is V

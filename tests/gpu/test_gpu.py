"""On a GPU every helper gives what it gives on the CPU, and runs that fail leave nothing behind.

``pytest -m gpu``; with ``--gpu-stand-in`` the CPU takes the GPU's place, to check the tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling import attribution
from helpers.activation_scaling.controls import shuffled
from helpers.activation_scaling.dynamic import DynScalar, DynScalarHidden
from helpers.activation_scaling.fitting import FitJob, fit, fit_many, largest_batch
from helpers.activation_scaling.interventions import (
    ActivScalar,
    Intervention,
    SteerVec,
    steered_logits,
)
from helpers.activation_scaling.objective import Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.activation_scaling.together import evaluate_many
from helpers.models.direct import direct_attribution
from helpers.models.load import fingerprint, load_model
from helpers.models.norms import Norm
from helpers.models.prefix import Runs
from helpers.models.run import last_logits
from helpers.observable_propagation.edits import (
    edited,
    leace,
    mean_difference,
    projection,
    steer,
)
from helpers.observable_propagation.features import head_biases, head_features, ov_svd
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.paths import Component, path_feature, reading
from helpers.observable_propagation.pull_back import IgnoreNorms, NormGradients, NormWeights
from helpers.observable_propagation.search import search_paths
from helpers.prompts.prompts import Prompts, join
from helpers.prompts.tasks import make_task
from tests.conftest import ARCHITECTURES, random_model

pytestmark = pytest.mark.gpu
LLAMA = "HuggingFaceTB/SmolLM2-135M-Instruct"
# How far a number may be from the CPU's, as a share of the largest. The tiny models compute in 64
# bits, all or most of it, the embedded one in 32. Over a fit rounding adds up, and Adam follows the
# sign of a gradient.
TOLERANCE = {"tiny": 1e-5, "tiny, fitted": 1e-3, "embedded": 1e-3, "embedded, fitted": 3e-2}
OBJECTIVE = Objective(margin=1.0, lambda_f=0.5, lambda_m=0.1)
Found = Iterable[Tensor]


# What is compared: each function gives numbers of a model, computed on the model's device, for two
# or more prompts of one length.


def drawn(
    model: TransformerBridge, prompts: Prompts, kind: type[Intervention] = ActivScalar
) -> Intervention:
    device = prompts.tokens.device
    intervention = kind(Points.of(model, prompts.n_pos), dtype=model.W_U.dtype, device=device)
    intervention.reset(0, 0.1)
    return intervention


def observable(model: TransformerBridge, prompts: Prompts) -> Observable:
    return Observable.of(model, {prompts.correct_texts[0]: 1.0, prompts.wrong_texts[0]: -1.0})


def learned(
    model: TransformerBridge, prompts: Prompts, kind: type[Intervention] = ActivScalar, **axes
) -> Found:
    n_pos = None if issubclass(kind, DynScalar | DynScalarHidden) else prompts.n_pos
    intervention = kind(Points.of(model, n_pos, **axes), dtype=model.W_U.dtype)
    fit(model, intervention, prompts, OBJECTIVE, learning_rate=1e-2, epochs=3, initial_std=0.1)
    measured = evaluate(model, intervention, prompts)
    return [intervention.vec(), torch.tensor([measured.E0, measured.F])]


def learned_together(model: TransformerBridge, prompts: Prompts) -> Found:
    points = Points.of(model, prompts.n_pos)
    objectives = (OBJECTIVE, Objective(margin=5.0), Objective(margin=0.1, lambda_f=2.0))
    for own in (prompts, None):
        jobs = []
        for seed, objective in enumerate(objectives):
            vectors = SteerVec(points, dtype=model.W_U.dtype)
            mine = own or prompts.at([seed % 2, (seed + 1) % 2])
            jobs.append(FitJob(vectors, objective, mine, 1e-2, seed, 0.1))
        for result in fit_many(model, jobs, epochs=3).results:
            yield result.intervention.vec()


def padded(model: TransformerBridge, prompts: Prompts) -> Found:
    text, right, wrong = prompts.texts[0], prompts.correct_texts[0], prompts.wrong_texts[0]
    longer = Prompts.of(model, [f"{text}{right} {text}"], [right], [wrong])
    joined = join([longer, prompts])
    yield last_logits(model, joined.tokens)
    yield from learned(model, joined, DynScalar)


def steered(model: TransformerBridge, prompts: Prompts) -> Found:
    yield last_logits(model, prompts.tokens)
    for kind in (ActivScalar, SteerVec):
        made = drawn(model, prompts, kind)
        betas = [-2.0, 0.0, 0.5, 1.0]
        yield steered_logits(model, prompts.tokens, made, betas, batch_size=3)
        together = evaluate_many(model, [(made, prompts), (shuffled(made), prompts)])
        for one in (evaluate(model, made, prompts), *together):
            yield torch.tensor([one.E0, one.F, one.M0, one.swapped])


def patched(model: TransformerBridge, prompts: Prompts) -> Found:
    where = {"layers": [0, -1], "positions": [1, -1]}
    for sites in (("attn_out", "mlp_out"), ("z", "v")):
        points = Points.of(model, prompts.n_pos, sites=sites, **where)
        swapped = attribution.activations(model, prompts.tokens.flip(0), points)
        noised = attribution.noised_activations(model, prompts, points)
        for other in (swapped, noised):
            maps = attribution.activ_patch(model, prompts, points, other, batch_size=16)
            yield from maps.values()
            yield from attribution.attr_patch(model, prompts, points, other).values()
    points = Points.of(model, prompts.n_pos, sites=("head_out", "mlp_out"), **where)
    yield from attribution.direct_logit(model, prompts, points).values()


def paths_patched(model: TransformerBridge, prompts: Prompts) -> Found:
    asked = observable(model, prompts)
    m = asked.vector(model)
    yield path_patching(model, prompts.tokens, prompts.tokens.flip(0), asked)
    found = direct_attribution(model, prompts.tokens, m)
    yield from (found.heads, found.attention_biases, found.mlps, found.embedding)
    yield steer(model, prompts.tokens, 1, -1, torch.stack([m, -m]), batch_size=3)


def features(model: TransformerBridge, prompts: Prompts) -> Found:
    m = observable(model, prompts).vector(model)
    points = {}
    for name in ("ln_final", "blocks.{}.ln1"):
        for layer in range(model.cfg.n_layers):
            points[name.format(layer)] = torch.linspace(-1, 1, len(m)).to(m) + 0.1
    for norms in (IgnoreNorms(), NormWeights({"ln_final": 2.0}), NormGradients(points)):
        yield head_features(model, torch.stack([m, 2 * m]), norms=norms)
    yield head_biases(model, m)
    yield ov_svd(model, 0).values


def path_features(model: TransformerBridge, prompts: Prompts) -> Found:
    m = observable(model, prompts).vector(model)
    chain = Component(0, 1), Component(1)  # a head of the first layer, the MLP of the second
    read = reading(model, chain, prompts.tokens[0], [1, -1, -1])
    yield torch.tensor(read.score)
    yield path_feature(model, chain, m, norms=NormGradients(read.points))

    def size(vectors: Tensor, layer: int, behind: tuple) -> Tensor:
        return vectors.norm(dim=(0, -1))

    search = search_paths(model, m[None], size, max_length=2, keep=3)
    for length in (1, 2):
        yield torch.tensor([path.score for path in search.found[length]])


def erased(model: TransformerBridge, prompts: Prompts) -> Found:
    points = Points.of(model, None, sites=["resid_post"])
    tokens = torch.cat([prompts.tokens, prompts.tokens.flip(1)])
    x = attribution.activations(model, tokens, points)["resid_post", 0].flatten(0, 1)
    group = torch.arange(len(x), device=x.device) % 2 == 0
    m = observable(model, prompts).vector(model)
    for erase in (
        projection(m, x.mean(0), spared=x[:1]),
        mean_difference(x, group),
        leace(x, group, shrinkage=0.1, spared=m[None]),
    ):
        yield erase(x)
        with edited(model, 1, slice(1, None), erase):
            yield last_logits(model, prompts.tokens)


FITS: dict[str, Callable[[TransformerBridge, Prompts], Found]] = {
    "scalars": learned,
    "vectors": partial(learned, kind=SteerVec),
    "scalars of heads": partial(learned, sites=["z"]),
    "vectors of heads": partial(learned, kind=SteerVec, sites=["head_out"], positions=[-1]),
    "dynamic scalars": partial(learned, kind=DynScalar),
    "dynamic scalars, hidden layer": partial(learned, kind=DynScalarHidden),
    "many in one batch": learned_together,
    "prompts of several lengths": padded,
}
REST: dict[str, Callable[[TransformerBridge, Prompts], Found]] = {
    "steering and evaluation": steered,
    "attribution maps": patched,
    "path patching": paths_patched,
    "features of heads": features,
    "features of paths": path_features,
    "erasure": erased,
}


def check(what: str, sides: Iterable[tuple[TransformerBridge, Prompts]], size: str) -> None:
    """Compare the numbers of one helper on the CPU with those on the other device."""
    tolerance = TOLERANCE[f"{size}, fitted" if what in FITS else size]
    on_cpu, on_gpu = (list((FITS | REST)[what](*side)) for side in sides)
    for number, (mine, its) in enumerate(zip(on_cpu, on_gpu, strict=True)):
        off = (mine.detach().double() - its.detach().cpu().double()).abs().max().item()
        message = f"{what}, number {number}: off by {off:.2g}"
        assert off <= tolerance * (1 + mine.abs().max().item()), message


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda name: name.split("/")[-1])
def both(request, tokenizer, gpu) -> tuple[TransformerBridge, TransformerBridge]:
    """The same tiny model on the CPU and on the GPU."""
    there = random_model(request.param, tokenizer, device=str(gpu))
    return random_model(request.param, tokenizer), there


def words(model: TransformerBridge, n_prompts: int = 3, n_words: int = 3) -> Prompts:
    texts, right, wrong = [], [], []
    for n in range(n_prompts):
        numbers = [(n + 4 * k * (n + 1)) % 100 + 1 for k in range(n_words)]
        texts.append(" ".join(f"w{number}" for number in numbers))
        right.append(f"w{n % 40 + 10}")
        wrong.append(f"w{n % 40 + 50}")
    return Prompts.of(model, texts, right, wrong)


@pytest.mark.parametrize("what", FITS | REST)
def test_a_helper_gives_on_the_gpu_what_it_gives_on_the_cpu(both, gpu, what):
    assert both[1].W_U.device.type == gpu.type and fingerprint(both[1]) == fingerprint(both[0])
    check(what, ((model, words(model)) for model in both), size="tiny")


@pytest.fixture(scope="module")
def embedded(smollm2, gpu) -> Iterator[tuple[TransformerBridge, TransformerBridge]]:
    threads = torch.get_num_threads()
    if gpu.type == "cuda":  # no other tests run beside these
        torch.set_num_threads(max(threads, (os.cpu_count() or 1) // 2))
    yield smollm2, load_model("smollm2", device=str(gpu))
    torch.set_num_threads(threads)


@pytest.mark.integration
@pytest.mark.parametrize("what", FITS | REST)
def test_so_it_does_with_the_embedded_model(embedded, what):
    sides = ((model, make_task(model, "IOI", n_train=2, n_test=2).train) for model in embedded)
    check(what, sides, size="embedded")


# Memory


@pytest.fixture
def cuda(gpu) -> torch.device:
    if gpu.type != "cuda":
        pytest.skip("tests CUDA's memory")
    torch.cuda.empty_cache()
    return gpu


@pytest.fixture(scope="module")
def large(tokenizer, gpu) -> tuple[TransformerBridge, Prompts]:
    """A tiny model and so many prompts that a fit takes hundreds of megabytes."""
    model = random_model(LLAMA, tokenizer, device=str(gpu))
    return model, words(model, *((400, 30) if gpu.type == "cuda" else (4, 5)))


def large_jobs(model: TransformerBridge, prompts: Prompts, n: int) -> list[FitJob]:
    jobs = []
    for number in range(n):
        scalars = ActivScalar(Points.of(model, prompts.n_pos), dtype=torch.float64)
        objective = Objective(margin=1.0 + number)
        jobs.append(FitJob(scalars, objective, prompts, 1e-2, number, 0.1))
    return jobs


def test_a_batch_that_runs_out_of_memory_is_halved_and_gives_the_same_fits(large, cuda):
    model, prompts = large
    alone = fit_many(model, large_jobs(model, prompts, 4), epochs=2, at_once=1)
    torch.cuda.empty_cache()
    one, total = alone.peak - torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
    share = (torch.cuda.memory_reserved() + 2.9 * one) / total
    try:
        torch.cuda.set_per_process_memory_fraction(share)
        done = fit_many(model, large_jobs(model, prompts, 4), epochs=2, at_once=4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert done.at_once < 4 and alone.at_once == 1
    for single, together in zip(alone.results, done.results, strict=True):
        off = (single.intervention.vec() - together.intervention.vec()).abs().max()
        assert off < TOLERANCE["tiny, fitted"]
    assert sum(len(point.fwd_hooks) for point in model.hook_dict.values()) == 0


def test_a_single_fit_that_is_too_large_raises_and_leaves_the_model_alone(large, cuda):
    model, prompts = large
    before = last_logits(model, prompts.tokens[:2])
    share = (torch.cuda.memory_reserved() + 2**25) / torch.cuda.mem_get_info()[1]
    try:
        torch.cuda.set_per_process_memory_fraction(share)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            fit_many(model, large_jobs(model, prompts, 2), epochs=1, at_once=2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
    assert torch.equal(last_logits(model, prompts.tokens[:2]), before)


def test_the_batch_size_follows_the_free_memory(large, cuda, monkeypatch):
    model, prompts = large
    free, total = torch.cuda.mem_get_info()
    fits = largest_batch(model, large_jobs(model, prompts, 1)[0])
    assert fits >= 2
    enough = int(2.5 * free / fits)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (enough, total))
    done = fit_many(model, large_jobs(model, prompts, 4), epochs=1)
    assert done.at_once == 2, "there is memory for two and a half"
    assert 0 < done.peak < total


# Errors


def as_it_was(model: TransformerBridge) -> None:
    assert torch.is_grad_enabled() and not model.training
    assert not any(parameter.requires_grad for parameter in model.original_model.parameters())


@pytest.mark.parametrize("block", ["scalars", "vectors", "an edit"])
def test_an_error_in_a_with_block_leaves_the_model_as_it_was(both, block):
    model, prompts = both[1], words(both[1])
    before = last_logits(model, prompts.tokens)
    hooks = sum(len(point.fwd_hooks) for point in model.hook_dict.values())
    change = {
        "scalars": lambda: drawn(model, prompts).applied(model, 1.0),
        "vectors": lambda: drawn(model, prompts, SteerVec).applied(model, 1.0),
        "an edit": lambda: edited(model, 1, -1, lambda x: 2 * x),
    }[block]
    with pytest.raises(ZeroDivisionError), change():
        assert not torch.equal(last_logits(model, prompts.tokens), before)
        raise ZeroDivisionError
    assert torch.equal(last_logits(model, prompts.tokens), before)
    assert sum(len(point.fwd_hooks) for point in model.hook_dict.values()) == hooks
    as_it_was(model)


def test_a_fit_that_is_stopped_leaves_the_model_as_it_was(both):
    model, prompts = both[1], words(both[1])
    before = last_logits(model, prompts.tokens)

    def stop(epoch: int) -> None:
        raise InterruptedError

    scalars = ActivScalar(Points.of(model, prompts.n_pos), dtype=torch.float64)
    with pytest.raises(InterruptedError):
        fit(model, scalars, prompts, OBJECTIVE, learning_rate=1e-2, epochs=3, on_epoch=stop)
    assert torch.equal(last_logits(model, prompts.tokens), before)
    as_it_was(model)


def test_parameters_on_another_device_than_the_model_are_refused(both, gpu):
    model, prompts = both[1], words(both[1])
    elsewhere = drawn(model, prompts).to("meta" if gpu.type == "cpu" else "cpu")
    message = r"parameters are on (meta|cpu), .*intervention\.to\('" + gpu.type
    with pytest.raises(ValueError, match=message), elsewhere.applied(model):
        last_logits(model, prompts.tokens)
    as_it_was(model)


def test_what_is_run_once_for_all_is_on_the_models_device(both, gpu):
    model = both[1]
    runs = Runs.of(model, words(model).tokens, 2)
    assert runs.fixed.length == 2
    assert {keys.device.type for keys, _ in runs.fixed.layers} == {gpu.type}
    assert Norm.of(model, "ln_final").weight.device.type == gpu.type

"""On a GPU: every helper gives what it gives on the CPU, memory that runs out is dealt with, an error leaves nothing behind.

``pytest -m gpu``; with ``--gpu-stand-in`` the CPU takes the GPU's place, which shows that the tests themselves run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers import many
from helpers.attribution import activ_patch, activations, attr_patch, direct_logit, direct_terms, noised_activations
from helpers.dynamic import DynScalar, DynScalarHidden
from helpers.erasure import edited, leace, mean_difference, projection
from helpers.features import head_biases, head_features, ov_svd
from helpers.fitting import fit
from helpers.grid import shuffled
from helpers.interventions import ActivScalar, Intervention, SteerVec, steered_logits
from helpers.many import Job, evaluate_many, fit_many
from helpers.models import fingerprint, last_logits, load_model
from helpers.norms import IgnoreNorms, Norm, NormGradients, NormWeights
from helpers.objective import Objective, evaluate
from helpers.observables import Observable
from helpers.padding import join, mixed
from helpers.patching import added, direct_attribution, path_patching, steer
from helpers.paths import Component, decision_boundary, mlp_output, path_feature, reading
from helpers.prefix import Runs
from helpers.search import search_paths
from helpers.sites import Points
from helpers.strength import best_strength, smallest_flip
from helpers.tasks import Prompts, make_task
from tests.conftest import ARCHITECTURES, random_model

pytestmark = pytest.mark.gpu
LLAMA = "HuggingFaceTB/SmolLM2-135M-Instruct"
# How far a number may be from the CPU's, as a share of the largest: the tiny models compute in 64 bits, all or most of it, the
# embedded one in 32. A fit adds up what rounding does to each step, and Adam follows the sign of a gradient.
TOLERANCE = {"tiny": 1e-5, "tiny, fitted": 1e-3, "embedded": 1e-3, "embedded, fitted": 3e-2}
OBJECTIVE = Objective(margin=1.0, lambda_f=0.5, lambda_m=0.1)
Found = Iterable[Tensor]


# What is compared: each gives numbers of a model on its own device, for two prompts of one length or more


def fitted(model: TransformerBridge, prompts: Prompts, kind: type[Intervention] = ActivScalar, **axes) -> Intervention:
    n_pos = None if issubclass(kind, DynScalar | DynScalarHidden) else prompts.n_pos
    intervention = kind(Points.of(model, n_pos, **axes), dtype=model.W_U.dtype)
    fit(model, intervention, prompts, OBJECTIVE, learning_rate=1e-2, epochs=3, initial_std=0.1)
    return intervention


def drawn(model: TransformerBridge, prompts: Prompts, kind: type[Intervention] = ActivScalar, seed: int = 0) -> Intervention:
    intervention = kind(Points.of(model, prompts.n_pos), dtype=model.W_U.dtype, device=prompts.tokens.device)
    intervention.reset(seed, 0.1)
    return intervention


def observable(model: TransformerBridge, prompts: Prompts) -> Observable:
    return Observable.of(model, {prompts.correct_texts[0]: 1.0, prompts.wrong_texts[0]: -1.0})


def some_points(model: TransformerBridge, prompts: Prompts, *sites: str) -> Points:
    return Points.of(model, prompts.n_pos, sites=sites, layers=[0, -1], positions=[1, -1])


def learned(model: TransformerBridge, prompts: Prompts, **how) -> Found:
    intervention = fitted(model, prompts, **how)
    measured = evaluate(model, intervention, prompts)
    return [intervention.vec(), torch.tensor([measured.E0, measured.F])]


def learned_together(model: TransformerBridge, prompts: Prompts) -> Found:
    points = Points.of(model, prompts.n_pos)
    objectives = (OBJECTIVE, Objective(margin=5.0), Objective(margin=0.1, lambda_f=2.0))
    jobs = [Job(SteerVec(points, dtype=model.W_U.dtype), objective, 1e-2, seed, 0.1) for seed, objective in enumerate(objectives)]
    return [result.intervention.vec() for result in fit_many(model, jobs, prompts, epochs=3).results]


def steered(model: TransformerBridge, prompts: Prompts) -> Found:
    yield last_logits(model, prompts.tokens)
    for kind in (ActivScalar, SteerVec):
        intervention = drawn(model, prompts, kind)
        yield steered_logits(model, prompts.tokens, intervention, [-2.0, 0.0, 0.5, 1.0], batch_size=3)
        measured = [evaluate(model, intervention, prompts), *evaluate_many(model, [intervention, shuffled(intervention)], prompts)]
        yield torch.tensor([[one.E0, one.F, one.M0, one.swapped] for one in measured])


def strengths(model: TransformerBridge, prompts: Prompts) -> Found:
    scalars = drawn(model, prompts)
    flips = smallest_flip(model, prompts, scalars, [0.1, 1.0, 10.0])
    yield from (torch.tensor(side).nan_to_num(-1.0) for side in (flips.base, flips.up, flips.down))
    yield torch.tensor(best_strength(model, prompts, scalars, OBJECTIVE, [0.1, 1.0]))


def padded(model: TransformerBridge, prompts: Prompts) -> Found:
    text, right, wrong = prompts.texts[0], prompts.correct_texts[0], prompts.wrong_texts[0]
    longer = mixed(model, [text, f"{text}{right} {text}"], [right, right], [wrong, wrong])
    joined = join([longer, prompts])
    yield last_logits(model, joined.tokens)
    yield fitted(model, joined, DynScalar).vec()


def patched(model: TransformerBridge, prompts: Prompts) -> Found:
    for sites in (("attn_out", "mlp_out"), ("z", "v")):
        points = some_points(model, prompts, *sites)
        swapped = activations(model, prompts.tokens.flip(0), points)
        noised = noised_activations(model, prompts, points)
        for other in (swapped, noised):
            yield from activ_patch(model, prompts, points, other, batch_size=16).values()
            yield from attr_patch(model, prompts, points, other).values()
    yield from direct_logit(model, prompts, some_points(model, prompts, "head_out", "mlp_out")).values()
    yield from direct_terms(model, prompts).values()


def paths_patched(model: TransformerBridge, prompts: Prompts) -> Found:
    asked, pair = observable(model, prompts), (prompts.tokens, prompts.tokens.flip(0))
    yield path_patching(model, *pair, asked)
    yield path_patching(model, *pair, asked, values_only=True, batch_size=1)
    found = direct_attribution(model, prompts.tokens, asked)
    yield from (found.heads, found.attention_biases, found.mlps, found.embedding, torch.tensor(found.constant), found.total)
    vectors = torch.stack([asked.vector(model), -asked.vector(model)])
    yield steer(model, prompts.tokens, 1, -1, vectors, batch_size=3)
    with added(model, 0, 1, vectors[0]):
        yield last_logits(model, prompts.tokens)


def norms_of(model: TransformerBridge, prompts: Prompts) -> list:
    names = ["ln_final", *(f"blocks.{layer}.{norm}" for layer in range(model.cfg.n_layers) for norm in ("ln1", "ln2"))]
    points = {name: torch.linspace(-1, 1, model.cfg.d_model).to(model.W_U) + 0.1 for name in names}
    return [IgnoreNorms(), NormWeights({"ln_final": 2.0}), NormGradients(points)]


def features(model: TransformerBridge, prompts: Prompts) -> Found:
    m = observable(model, prompts).vector(model)
    for norms in norms_of(model, prompts):
        yield head_features(model, torch.stack([m, 2 * m]), norms=norms)
    yield head_biases(model, m)
    yield ov_svd(model, 0).values


def path_features(model: TransformerBridge, prompts: Prompts) -> Found:
    m = observable(model, prompts).vector(model)
    chain = Component(0, 1), Component(1)  # the head of the first layer, the MLP of the second
    read = reading(model, chain, prompts.tokens[0], [1, -1, -1])
    yield torch.tensor(read.score)
    yield path_feature(model, chain, m, norms=NormGradients(read.points))
    x = read.points["ln_final"]
    y = mlp_output(model, 1, x).detach()
    yield decision_boundary(lambda at: y @ mlp_output(model, 1, at), -x, x, halfway=True).point
    found = search_paths(model, m[None], lambda vectors, layer, behind: vectors.norm(dim=(0, -1)), max_length=2, keep=3, beam=4)
    yield torch.tensor([path.score for length in (1, 2) for path in found.found[length]])


def erased(model: TransformerBridge, prompts: Prompts) -> Found:
    x = activations(model, torch.cat([prompts.tokens, prompts.tokens.flip(1)]), Points.of(model, None, sites=["resid_post"]))
    x = x["resid_post", 0].flatten(0, 1)
    group = torch.arange(len(x), device=x.device) % 2 == 0
    m = observable(model, prompts).vector(model)
    for erase in (projection(m, x.mean(0), spared=x[:1]), mean_difference(x, group, spared=m[None]), leace(x, group, shrinkage=0.1)):
        yield erase(x)
        with edited(model, 1, slice(1, None), erase):
            yield last_logits(model, prompts.tokens)


FITS: dict[str, Callable[[TransformerBridge, Prompts], Found]] = {
    "scalars": learned,
    "vectors": partial(learned, kind=SteerVec),
    "scalars of heads": partial(learned, sites=["z"]),
    "vectors of heads, last position": partial(learned, kind=SteerVec, sites=["head_out"], positions=[-1]),
    "dynamic scalars": partial(learned, kind=DynScalar),
    "dynamic scalars, hidden layer": partial(learned, kind=DynScalarHidden),
    "many in one batch": learned_together,
    "strengths": strengths,
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


def check(what: str, here: tuple[TransformerBridge, Prompts], there: tuple[TransformerBridge, Prompts], size: str) -> None:
    """The numbers of one helper on the CPU against those on the other device."""
    tolerance = TOLERANCE[f"{size}, fitted" if what in FITS else size]
    on_cpu, on_gpu = ([one.detach() for one in (FITS | REST)[what](*side)] for side in (here, there))
    for number, (mine, its) in enumerate(zip(on_cpu, on_gpu, strict=True)):
        off = (mine.double() - its.cpu().double()).abs().max().item()
        assert off <= tolerance * (1 + mine.abs().max().item()), f"{what}, number {number}: off by {off:.2g}"


# Tiny models of every architecture


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda name: name.split("/")[-1])
def both(request, tokenizer, gpu) -> tuple[TransformerBridge, TransformerBridge]:
    return random_model(request.param, tokenizer), random_model(request.param, tokenizer, device=str(gpu))


def words(model: TransformerBridge, n_prompts: int = 3, n_words: int = 3) -> Prompts:
    texts = [" ".join(f"w{(n + 4 * k * (n + 1)) % 100 + 1}" for k in range(n_words)) for n in range(n_prompts)]
    return Prompts.of(model, texts, [f"w{n % 40 + 10}" for n in range(n_prompts)], [f"w{n % 40 + 50}" for n in range(n_prompts)])


@pytest.mark.parametrize("what", FITS | REST)
def test_a_helper_gives_on_the_gpu_what_it_gives_on_the_cpu(both, gpu, what):
    assert both[1].W_U.device.type == gpu.type and fingerprint(both[1]) == fingerprint(both[0])
    check(what, *((model, words(model)) for model in both), size="tiny")


# The embedded model


@pytest.fixture(scope="module")
def embedded(smollm2, gpu) -> Iterator[tuple[TransformerBridge, TransformerBridge]]:
    threads = torch.get_num_threads()
    if gpu.type == "cuda":  # a machine of its own
        torch.set_num_threads(max(threads, (os.cpu_count() or 1) // 2))
    yield smollm2, load_model("smollm2", device=str(gpu))
    torch.set_num_threads(threads)


@pytest.mark.integration
@pytest.mark.parametrize("what", FITS | REST)
def test_so_it_does_with_the_embedded_model(embedded, what):
    check(what, *((model, make_task(model, "IOI", n_train=2, n_test=2).train) for model in embedded), size="embedded")


# Memory


@pytest.fixture
def cuda(gpu) -> torch.device:
    if gpu.type != "cuda":
        pytest.skip("of CUDA's own memory")
    torch.cuda.empty_cache()
    return gpu


def large_jobs(model: TransformerBridge, prompts: Prompts, n: int) -> list[Job]:
    points = Points.of(model, prompts.n_pos)
    return [Job(ActivScalar(points, dtype=torch.float64), Objective(margin=1.0 + number), 1e-2, number, 0.1) for number in range(n)]


@pytest.fixture(scope="module")
def large(tokenizer, gpu) -> tuple[TransformerBridge, Prompts]:
    """A tiny model and so many prompts that a fit takes hundreds of megabytes."""
    model = random_model(LLAMA, tokenizer, device=str(gpu))
    return model, words(model, *((400, 30) if gpu.type == "cuda" else (4, 5)))


def test_a_batch_for_which_memory_runs_out_is_halved_and_its_fits_are_those_of_single_ones(large, cuda):
    model, prompts = large
    alone = fit_many(model, large_jobs(model, prompts, 4), prompts, epochs=2, at_once=1)
    torch.cuda.empty_cache()
    one, total = alone.peak - torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2.9 * one) / total)
        done = fit_many(model, large_jobs(model, prompts, 4), prompts, epochs=2, at_once=4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert done.at_once < 4 and alone.at_once == 1
    for single, together in zip(alone.results, done.results, strict=True):
        assert (single.intervention.vec() - together.intervention.vec()).abs().max() < TOLERANCE["tiny, fitted"]
    assert sum(len(point.fwd_hooks) for point in model.hook_dict.values()) == 0


def test_a_single_setting_that_is_too_large_says_so_and_leaves_the_model_alone(large, cuda):
    model, prompts = large
    before = last_logits(model, prompts.tokens[:2])
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**25) / torch.cuda.mem_get_info()[1])
        with pytest.raises(torch.cuda.OutOfMemoryError):
            fit_many(model, large_jobs(model, prompts, 2), prompts, epochs=1, at_once=2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
    assert torch.equal(last_logits(model, prompts.tokens[:2]), before)


def test_a_batch_is_sized_by_the_memory_there_is(large, cuda, monkeypatch):
    model, prompts = large
    (job,) = large_jobs(model, prompts, 1)
    free, total = torch.cuda.mem_get_info()
    fits = many.room(model, job, prompts)
    assert fits >= 2
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (int(2.5 * free / fits), total))
    done = fit_many(model, large_jobs(model, prompts, 4), prompts, epochs=1)
    assert done.at_once == 2, "room for two and a half"
    assert 0 < done.peak < total


# Errors


@pytest.mark.parametrize("block", ["scalars", "vectors", "an added vector", "an edit"])
def test_an_error_in_a_with_block_leaves_the_model_as_it_was(both, block):
    model = both[1]
    prompts = words(model)
    before, hooks = last_logits(model, prompts.tokens), sum(len(point.fwd_hooks) for point in model.hook_dict.values())
    change = {
        "scalars": lambda: drawn(model, prompts).applied(model, 1.0),
        "vectors": lambda: drawn(model, prompts, SteerVec).applied(model, 1.0),
        "an added vector": lambda: added(model, 0, 1, torch.ones_like(model.W_U[:, 0])),
        "an edit": lambda: edited(model, 1, -1, lambda x: 2 * x),
    }[block]
    with pytest.raises(ZeroDivisionError), change():
        assert not torch.equal(last_logits(model, prompts.tokens), before)
        raise ZeroDivisionError
    assert torch.equal(last_logits(model, prompts.tokens), before)
    assert sum(len(point.fwd_hooks) for point in model.hook_dict.values()) == hooks
    as_it_was(model)


def test_a_fit_that_stops_on_the_way_leaves_the_model_as_it_was(both):
    model = both[1]
    prompts = words(model)
    before = last_logits(model, prompts.tokens)

    def stop(epoch: int) -> None:
        raise InterruptedError

    scalars = ActivScalar(Points.of(model, prompts.n_pos), dtype=torch.float64)
    with pytest.raises(InterruptedError):
        fit(model, scalars, prompts, OBJECTIVE, learning_rate=1e-2, epochs=3, on_epoch=stop)
    assert torch.equal(last_logits(model, prompts.tokens), before)
    as_it_was(model)


def as_it_was(model: TransformerBridge) -> None:
    assert torch.is_grad_enabled() and not model.training
    assert not any(parameter.requires_grad for parameter in model.original_model.parameters())


def test_parameters_on_another_device_than_the_model_are_refused_by_name(both, gpu):
    model = both[1]
    prompts = words(model)
    elsewhere = drawn(model, prompts).to("meta" if gpu.type == "cpu" else "cpu")
    with pytest.raises(ValueError, match=r"parameters are on (meta|cpu), .*intervention\.to\('" + gpu.type), elsewhere.applied(model):
        last_logits(model, prompts.tokens)
    as_it_was(model)


def test_what_is_run_once_for_all_is_on_the_models_device(both, gpu):
    model = both[1]
    runs = Runs.of(model, words(model).tokens, 2)
    assert runs.fixed.length == 2 and {keys.device.type for keys, _ in runs.fixed.layers} == {gpu.type}
    assert Norm.of(model, "ln_final").weight.device.type == gpu.type

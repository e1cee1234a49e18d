"""Time the helpers beside plain ways of doing the same: ``make bench``.

All ways of a case run in one process and in turns, after they have been shown to give the same
numbers. The table is recorded with its provenance.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.fitting import FitJob, fit_many, largest_batch
from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.blocks import kv_heads
from helpers.models.load import device_of, load_model
from helpers.models.run import HOOKS, last_logits, read_activations
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.pull_back import head_weights
from helpers.observable_propagation.search import search_paths
from helpers.prompts.tasks import make_task
from helpers.results.records import provenance, record

NUMBERS = ("seconds", "median", "repeats", "peak_gb", "gflops")
COLUMNS = ("case", "variant", *NUMBERS, "ratio_plain", "ratio_floor", "difference", "note")
OUT_OF_CACHE = 1 << 28  # bytes of weights that no cache holds
KEEP = 10  # paths of a search
SLOW = 20  # seconds: a variant that takes longer runs only once
Row = dict[str, Any]
Jobs = Sequence[FitJob]


# Times


class Run(NamedTuple):
    """A result, its wall-clock seconds, and the maximum GPU memory in use in GB."""

    result: Any
    seconds: float
    peak_gb: float | None


def timed(run: Callable[[], Any], device: torch.device) -> Run:
    """Run it once; on a GPU, until all kernels are done."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    result = run()
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    return Run(result, seconds, torch.cuda.max_memory_allocated(device) / 1e9 if cuda else None)


class Variant(NamedTuple):
    """One way of computing a tensor.

    Attributes:
        name: in the table.
        run: what is timed.
        share: how many fits it does at once; times are divided by it.
        tolerance: allowed relative difference from the first variant's numbers.
    """

    name: str
    run: Callable[[], Tensor]
    share: int = 1
    tolerance: float = 1e-3


def compare(
    case: str, variants: Sequence[Variant], repeats: int, device: torch.device
) -> list[Row]:
    """A row of times for each variant; ``seconds`` is the least of its runs.

    Raises:
        ValueError: a variant computes something else than the first one. Nothing is timed then.
    """
    # The first runs are compared, and do not count unless they are slow.
    first = [timed(variant.run, device) for variant in variants]
    expected = first[0].result.double().cpu()
    differences = []
    for variant, run in zip(variants, first):
        off = (run.result.double().cpu() - expected).abs()
        differences.append(off.max().item())
        if not (off <= variant.tolerance * (1 + expected.abs())).all():
            raise ValueError(
                f"{variant.name!r} does not compute what {variants[0].name!r} computes: they "
                f"differ by up to {off.max():.3g}. Nothing was timed."
            )
    # Taking turns spreads other work on the machine over all variants.
    times = [[run.seconds] if run.seconds > SLOW else [] for run in first]
    again = [number for number, mine in enumerate(times) if not mine]
    for _ in range(repeats):
        for number in again:
            times[number].append(timed(variants[number].run, device).seconds)
    rows = []
    for variant, run, mine, difference in zip(variants, first, times, differences):
        row = {"case": case, "variant": variant.name, "repeats": len(mine)}
        row |= {"seconds": min(mine) / variant.share, "median": median(mine) / variant.share}
        row |= {"peak_gb": run.peak_gb, "difference": difference}
        row["note"] = f"{variant.share} fits in a batch" if variant.share > 1 else ""
        rows.append(row | {"ratio_plain": (rows or [row])[0]["seconds"] / row["seconds"]})
    return rows


# Fits, and the floor of their arithmetic


def plain_fit(model: TransformerBridge, job: FitJob, steps: int) -> Float[Tensor, " n_parameters"]:
    """TransformerLens' hooks, a prompt and a β at a time; the base distribution in every step."""
    intervention, prompts = job.intervention, job.prompts
    intervention.to(prompts.tokens.device)
    intervention.reset(job.seed, job.initial_std)
    optimizer = torch.optim.Adam(intervention.parameters(), lr=job.learning_rate)
    scale = isinstance(intervention, ActivScalar)

    # One hook for each site and layer
    def edit(h: Tensor, hook: Any, own: Tensor, beta: float) -> Tensor:
        return h * (1 + beta * own.unsqueeze(-1)) if scale else h + beta * own

    def steered(tokens: Tensor, beta: float) -> Tensor:
        hooks = []
        for site, theta in intervention.theta.items():
            for layer, own in enumerate(theta):
                name = HOOKS[site].format(layer=layer)
                hooks.append((name, partial(edit, own=own, beta=beta)))
        return model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]

    for _ in range(steps):
        optimizer.zero_grad()
        for row in range(len(prompts)):
            one = prompts.at([row])
            with torch.no_grad():
                base = model(one.tokens)[:, -1]
            logits = steered(one.tokens, 1.0), steered(one.tokens, -1.0), base
            terms = job.objective.terms(intervention.vec(), *logits, one.correct, one.wrong)
            (-terms["psi"] / len(prompts)).backward()
        optimizer.step()
    return intervention.vec().detach()


def our_fit(model: TransformerBridge, jobs: Jobs, steps: int) -> Float[Tensor, " n_parameters"]:
    """The parameters of the first of some jobs, fitted in one batch."""
    done = fit_many(model, jobs, epochs=steps, at_once=len(jobs))
    return done.results[0].intervention.vec().detach()


def fit_flops(model: TransformerBridge, n_prompts: int, n_pos: int, steps: int) -> float:
    """Floating-point operations of the matrix products in a fit at all attn_out and mlp_out.

    The base run once, then both signs of β forward and backward in every step; unembedding at the
    last token only; gradients of activations, not of weights. A multiplication and its addition
    count as two.
    """
    cfg = model.cfg
    # One layer's linear maps of attention, its scores and averages, its MLP; for one prompt.
    heads = cfg.n_heads * cfg.d_head
    attention = 2 * n_pos * cfg.d_model * (2 * heads + 2 * kv_heads(model) * cfg.d_head)
    scores = 2 * n_pos**2 * 2 * heads
    mlp = 2 * n_pos * cfg.d_model * cfg.d_mlp * (3 if cfg.gated_mlp else 2)
    unembedding = 2 * cfg.d_model * cfg.d_vocab
    forward = cfg.n_layers * (attention + scores + mlp) + unembedding
    # Backward, products of two activations cost twice as much. Nothing goes back through what
    # reads only the embedding: the first attention, and its MLP where the two are parallel.
    parallel = getattr(cfg, "parallel_attn_mlp", False)
    backward = (cfg.n_layers - 1) * (attention + 2 * scores)
    backward += (cfg.n_layers - parallel) * mlp + unembedding
    return n_prompts * (forward + steps * 2 * (forward + backward))


def product_rate(model: TransformerBridge, rows: int, *, hot: bool) -> float:
    """Operations a second of products with matrices of the model's shapes, best of three.

    Args:
        rows: of the activations.
        hot: the same few weights again and again, from the cache; else each from main memory, as
            in a step of a fit.
    """
    cfg, device = model.cfg, device_of(model)
    shapes = [(cfg.d_model, cfg.d_mlp), (cfg.d_mlp, cfg.d_model), (cfg.d_model, cfg.d_model)]
    size = 4 * sum(a * b for a, b in shapes)
    n = len(shapes) * (1 if hot else max(1, -(-OUT_OF_CACHE // size)))
    weights = [torch.randn(shape, device=device) for shape in islice(cycle(shapes), n)]
    weights = weights * 4 if hot else weights
    inputs = {len(weight): torch.ones(rows, len(weight), device=device) for weight in weights}

    def multiply() -> None:
        for weight in weights:
            inputs[len(weight)] @ weight

    multiply()
    seconds = min(timed(multiply, device).seconds for _ in range(3))
    return sum(2 * rows * weight.numel() for weight in weights) / seconds


def fit_case(model: TransformerBridge, given: argparse.Namespace) -> list[Row]:
    """A short fit of activation scalars in each way, and the floor of its arithmetic."""
    prompts = make_task(model, "IOI", n_train=given.prompts, n_test=2, seed=0).train
    points, objective = Points.of(model, prompts.n_pos), Objective(1.0, 1.0, 1.0)

    def jobs(n: int) -> Jobs:
        each = [ActivScalar(points, dtype=model.W_U.dtype) for _ in range(n)]
        return [FitJob(scalars, objective, prompts, 1e-2) for scalars in each]

    n, steps = 2 if given.small else max(2, min(64, largest_batch(model, jobs(1)[0]))), given.steps
    variants = [
        Variant("plain loop", lambda: plain_fit(model, jobs(1)[0], steps)),
        Variant("ours", lambda: our_fit(model, jobs(1), steps), tolerance=1e-2),
        Variant("ours, together", lambda: our_fit(model, jobs(n), steps), n, tolerance=1e-2),
    ]
    case = f"fit, IOI, {len(prompts)} prompts of {prompts.n_pos}, {steps} steps"
    rows = compare(case, variants, given.repeats, given.device)
    # The floor: the same operations at the rate of a plain matrix product, in cache and out of it.
    plain, flops = rows[0]["seconds"], fit_flops(model, len(prompts), prompts.n_pos, steps)
    rows_a_step = 2 * len(prompts) * prompts.n_pos
    for kind, n_rows in (("hot", max(rows_a_step, 1024)), ("cold", rows_a_step)):
        rate = product_rate(model, n_rows, hot=kind == "hot")
        row = {"case": case, "variant": f"floor, {kind}", "seconds": flops / rate}
        rows.append(row | {"ratio_plain": plain * rate / flops, "gflops": rate / 1e9})
    hot = rows[-2]["seconds"]
    return [row | {"ratio_floor": row["seconds"] / hot} for row in rows]


# Feature vectors, path patching, path search


def full_matrices(
    model: TransformerBridge, m: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n layer head d_model"]:
    """Feature vectors through each head's d_model × d_model matrix W_OV, a head at a time."""
    layers = []
    for layer in range(model.cfg.n_layers):
        W_V, W_O = head_weights(model, layer)
        heads = [m @ (W_V[head] @ W_O[head]).T for head in range(model.cfg.n_heads)]
        layers.append(torch.stack(heads, dim=1))
    return torch.stack(layers, dim=1)


@torch.no_grad()
def patching_in_turn(
    model: TransformerBridge,
    clean: Int[Tensor, "pair pos"],
    corrupted: Int[Tensor, "pair pos"],
    observable: Observable,
) -> Float[Tensor, "pair layer head"]:
    """Path patching with a run for each head, in which all else writes as in the clean run."""
    layers = range(model.cfg.n_layers)
    sites = ("hook_attn_out", "hook_mlp_out")
    writes = [f"blocks.{layer}.{site}" for layer in layers for site in sites]
    heads = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    here, _ = read_activations(model, clean, [*writes, *heads])
    there, _ = read_activations(model, corrupted, heads)

    def fixed(value: Tensor) -> Callable:
        return lambda h, hook: value

    # Every write but the patched layer's attention is held at its value in the clean run.
    before = observable.measure(last_logits(model, clean))
    effects = []
    for layer, name in enumerate(heads):
        others = [write for write in writes if write != f"blocks.{layer}.hook_attn_out"]
        hooks = [(write, fixed(here[write])) for write in others]
        for head in range(model.cfg.n_heads):
            z = here[name].clone()
            z[:, :, head] = there[name][:, :, head]
            with model.hooks(fwd_hooks=[*hooks, (name, fixed(z))]):
                effects.append(before - observable.measure(last_logits(model, clean)))
    return torch.stack(effects, dim=1).view(len(clean), len(heads), -1)


def every_chain(model: TransformerBridge, m: Float[Tensor, "n d_model"]) -> Tensor:
    """The greatest lengths of feature vectors of one head, then of two, each chain by itself."""
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    weights = [head_weights(model, layer) for layer in range(n_layers)]

    def back(layer: int, head: int, y: Tensor) -> Tensor:
        return (y @ weights[layer][1][head].T) @ weights[layer][0][head].T

    one, two = [], []
    for layer in range(n_layers):
        for head in range(n_heads):
            y = back(layer, head, m)
            one.append(y.norm())
            for earlier in range(layer):
                two += [back(earlier, first, y).norm() for first in range(n_heads)]
    best = [torch.stack(each).sort(descending=True).values[:KEEP] for each in (one, two)]
    return torch.cat(best)


def our_search(model: TransformerBridge, m: Float[Tensor, "n d_model"]) -> Tensor:
    def length(features: Tensor, layer: int, behind: tuple) -> Tensor:
        return features.norm(dim=(0, -1))

    found = search_paths(model, m, length, max_length=2, keep=KEEP).found
    return torch.tensor([path.score for paths in found.values() for path in paths])


def vector_cases(model: TransformerBridge, given: argparse.Namespace) -> list[Row]:
    draw, d_vocab = torch.Generator().manual_seed(0), model.cfg.d_vocab
    m = model.W_U[:, torch.randint(d_vocab, (4,), generator=draw).to(given.device)].T
    # Random prompts serve as well: the time does not depend on the text.
    tokens = torch.randint(1, d_vocab, (2, 2, 13), generator=draw).to(given.device)
    asked = Observable(((1, "first", 1.0), (2, "second", -1.0)), model.cfg.model_name)
    cases = {
        "feature vectors of all heads, 4 observables": [
            Variant("full matrices, a head at a time", lambda: full_matrices(model, m)),
            Variant("ours, factored", lambda: head_features(model, m)),
        ],
        "path patching, 2 pairs of 13": [
            Variant("a run for each head", lambda: patching_in_turn(model, *tokens, asked)),
            Variant("ours, two runs", lambda: path_patching(model, *tokens, asked)),
        ],
        "path search, up to 2 heads": [
            Variant("every chain by itself", lambda: every_chain(model, m[:1])),
            Variant("ours, a layer at a time", lambda: our_search(model, m[:1])),
        ],
    }
    rows = []
    for name, pair in cases.items():
        rows += compare(name, pair, given.repeats, given.device)
    return rows


# Loading, chapters, tests


def load_cases(model: TransformerBridge, given: argparse.Namespace) -> list[Row]:
    """Loading the model; how long the chapters and tests took when they last ran here."""
    command = [sys.executable, "-c", "from helpers.models.load import load_model; load_model()"]
    cold = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    rows: list[Row] = []
    for name, load in {"a new process": cold, "the same process again": load_model}.items():
        seconds = timed(load, given.device).seconds
        rows.append({"case": "load", "variant": name, "seconds": seconds})
    timings, report = given.book / "_build/timings.csv", given.book / "_build/tests.xml"
    if timings.is_file():
        chapters = pd.read_csv(timings).groupby("chapter", sort=False)["seconds"].sum()
        for name, seconds in [*chapters.items(), ("all", chapters.sum())]:
            rows.append({"case": "chapters", "variant": name, "seconds": seconds})
    if report.is_file():
        suite = ElementTree.parse(report).getroot().find("testsuite")
        seconds, note = float(suite.get("time")), f"{suite.get('tests')} tests"
        rows.append({"case": "tests", "variant": "make test", "seconds": seconds, "note": note})
    return rows


CASES = {"fit": fit_case, "vectors": vector_cases, "load": load_cases}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("_build/bench/bench.csv"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--book", type=Path, default=Path(), help="where make book and test ran")
    parser.add_argument("--small", action="store_true", help="smallest sizes, to see that it runs")
    given = parser.parse_args(arguments)
    sizes = {"prompts": 2, "steps": 1, "repeats": 1}
    sizes = sizes if given.small else {"prompts": 8, "steps": 2, "repeats": 3}
    vars(given).update(sizes)
    # Run the cases.
    start, rows = time.perf_counter(), []
    model = load_model()
    given.device = device_of(model)
    for case in given.cases:
        rows += CASES[case](model, given)
    # Record the table with its provenance, and show it.
    table = pd.DataFrame([{"note": "", **row} for row in rows], columns=COLUMNS)
    origin = provenance(model, **sizes, limit=SLOW)
    record(table, given.out, origin | {"wall_seconds": round(time.perf_counter() - start, 1)})
    shown = table.drop(columns=["median", "repeats"])
    print(shown.to_string(index=False, na_rep="", float_format="{:.4g}".format))
    print(f"\nRecorded in {given.out}: {origin['device']}, {origin['threads']} threads")


if __name__ == "__main__":
    main()

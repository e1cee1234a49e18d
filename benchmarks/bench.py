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
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any
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
from helpers.models.load import device_of, kv_heads, load_model
from helpers.models.run import HOOKS, last_logits, read_activations
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.pull_back import head_weights
from helpers.observable_propagation.search import search_paths
from helpers.prompts.tasks import make_task
from helpers.results.records import provenance, record

CASES = ("fit", "vectors", "load")
NUMBERS = ("seconds", "median", "cpu_seconds", "repeats", "peak_gb", "gflops")
COLUMNS = ("case", "variant", *NUMBERS, "ratio_plain", "ratio_floor", "difference", "note")
OUT_OF_CACHE = 1 << 28  # bytes of weights that no cache holds
KEEP = 10  # paths of a search
Row = dict[str, Any]
Jobs = Sequence[FitJob]


# Times


@dataclass(frozen=True)
class Run:
    """A result, its wall-clock and CPU seconds, and the maximum GPU memory in use in GB."""

    result: Any
    seconds: float
    cpu: float
    peak_gb: float | None


def timed(run: Callable[[], Any], device: torch.device) -> Run:
    """Run it once; on a GPU, until all kernels are done."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start, cpu = time.perf_counter(), time.process_time()
    result = run()
    if cuda:
        torch.cuda.synchronize(device)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if cuda else None
    return Run(result, seconds, cpu, peak)


@dataclass(frozen=True)
class Variant:
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


def compare(case: str, variants: Sequence[Variant], given: argparse.Namespace) -> list[Row]:
    """A row of times for each variant; ``seconds`` is the least of its runs.

    Raises:
        ValueError: a variant computes something else than the first one. Nothing is timed then.
    """
    # The first runs are compared, and do not count unless they are slow.
    first = [timed(variant.run, given.device) for variant in variants]
    expected = first[0].result.double().cpu()
    differences = []
    for variant, run in zip(variants, first):
        off = (run.result.double().cpu() - expected).abs()
        differences.append(off.max().item())
        if not (off <= variant.tolerance * (1 + expected.abs())).all():
            raise ValueError(
                f"{variant.name!r} does not compute what {variants[0].name!r} computes: they "
                "differ "
                f"by up to {off.max():.3g}. Times of different results cannot be compared."
            )
    # Taking turns spreads other work on the machine over all variants.
    runs = [[run] if run.seconds > given.limit else [] for run in first]
    again = [number for number, mine in enumerate(runs) if not mine]
    for _ in range(given.repeats):
        for number in again:
            runs[number].append(timed(variants[number].run, given.device))
    rows = []
    for variant, mine, difference in zip(variants, runs, differences):
        row = {
            "case": case,
            "variant": variant.name,
            "seconds": min(run.seconds for run in mine) / variant.share,
            "median": median(run.seconds for run in mine) / variant.share,
            "cpu_seconds": min(run.cpu for run in mine) / variant.share,
            "repeats": len(mine),
            "peak_gb": mine[0].peak_gb,
            "difference": difference,
            "note": f"{variant.share} fits in a batch" if variant.share > 1 else "",
        }
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

    # One hook for each site and layer, at a fixed β.
    def hooks(beta: float) -> list[tuple[str, Callable]]:
        made = []
        for site, theta in intervention.theta.items():
            for layer, own in enumerate(theta):

                def edit(h: Tensor, hook, own: Tensor = own) -> Tensor:
                    return h * (1 + beta * own.unsqueeze(-1)) if scale else h + beta * own

                made.append((HOOKS[site].format(layer=layer), edit))
        return made

    for _ in range(steps):
        optimizer.zero_grad()
        for row in range(len(prompts)):
            one = prompts.at([row])
            with torch.no_grad():
                base = model(one.tokens)[:, -1]
            plus = model.run_with_hooks(one.tokens, fwd_hooks=hooks(1.0))[:, -1]
            minus = model.run_with_hooks(one.tokens, fwd_hooks=hooks(-1.0))[:, -1]
            answers = one.correct, one.wrong
            terms = job.objective.terms(intervention.vec(), plus, minus, base, *answers)
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

    several = 2 if given.small else max(2, min(64, largest_batch(model, jobs(1)[0])))
    variants = [
        Variant("plain loop", lambda: plain_fit(model, jobs(1)[0], given.steps)),
        Variant("ours", lambda: our_fit(model, jobs(1), given.steps), tolerance=1e-2),
        Variant(
            "ours, together", lambda: our_fit(model, jobs(several), given.steps), several, 1e-2
        ),
    ]
    # The floor: the same operations at the rate of a plain matrix product, in cache and out of it.
    case = f"fit, IOI, {len(prompts)} prompts of {prompts.n_pos}, {given.steps} steps"
    rows_a_step = 2 * len(prompts) * prompts.n_pos
    rates = {}
    for kind, n in (("hot", max(rows_a_step, 1024)), ("cold", rows_a_step)):
        rates[kind] = product_rate(model, n, hot=kind == "hot")
    rows = compare(case, variants, given)
    plain, flops = rows[0], fit_flops(model, len(prompts), prompts.n_pos, given.steps)
    for kind, rate in rates.items():
        row = {"variant": f"floor, {kind}", "seconds": flops / rate, "gflops": rate / 1e9}
        rows.append({"case": case, "ratio_plain": plain["seconds"] * rate / flops, **row})
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
                for first in range(n_heads):
                    two.append(back(earlier, first, y).norm())
    best = [torch.stack(each).sort(descending=True).values[:KEEP] for each in (one, two)]
    return torch.cat(best)


def our_search(model: TransformerBridge, m: Float[Tensor, "n d_model"]) -> Tensor:
    def length(features: Tensor, layer: int, behind: tuple) -> Tensor:
        return features.norm(dim=(0, -1))

    found = search_paths(model, m, length, max_length=2, keep=KEEP).found
    return torch.tensor([path.score for paths in found.values() for path in paths])


def vector_cases(model: TransformerBridge, given: argparse.Namespace) -> list[Row]:
    draw, d_vocab = torch.Generator().manual_seed(0), model.cfg.d_vocab
    rows = []
    for n in (1, 4, 64):
        m = model.W_U[:, torch.randint(d_vocab, (n,), generator=draw).to(given.device)].T
        pair = [
            Variant("full matrices, a head at a time", lambda m=m: full_matrices(model, m)),
            Variant("ours, factored", lambda m=m: head_features(model, m)),
        ]
        name = f"feature vectors of all heads, {n} observable{'s' * (n > 1)}"
        rows += compare(name, pair, given)
    # Random prompts serve as well: the time does not depend on the text.
    tokens = torch.randint(1, d_vocab, (2, 2, 13), generator=draw).to(given.device)
    asked = Observable(((1, "first", 1.0), (2, "second", -1.0)), model.cfg.model_name)
    pair = [
        Variant("a run for each head", lambda: patching_in_turn(model, *tokens, asked)),
        Variant("ours, two runs", lambda: path_patching(model, *tokens, asked)),
    ]
    rows += compare("path patching, 2 pairs of 13", pair, given)
    pair = [
        Variant("every chain by itself", lambda: every_chain(model, m[:1])),
        Variant("ours, a layer at a time", lambda: our_search(model, m[:1])),
    ]
    return rows + compare("path search, up to 2 heads", pair, given)


# Loading, chapters, tests


def load_cases(given: argparse.Namespace) -> list[Row]:
    """Loading the model; how long the chapters and tests took when they last ran here."""
    command = [sys.executable, "-c", "from helpers.models.load import load_model; load_model()"]
    cold = timed(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), given.device
    )
    warm = timed(load_model, given.device).seconds
    rows: list[Row] = [
        {"variant": "a new process", "seconds": cold.seconds, "note": "with all imports"},
        {"variant": "the same process again", "seconds": warm},
    ]
    rows = [{"case": "load", **row} for row in rows]
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("_build/bench/bench.csv"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="of the short fit")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each variant")
    parser.add_argument("--limit", type=float, default=20.0, help="slower variants run only once")
    parser.add_argument("--book", type=Path, default=Path(), help="where make book and test ran")
    parser.add_argument(
        "--small", action="store_true", help="smallest sizes, to check that it runs"
    )
    given = parser.parse_args(arguments)
    if given.small:
        given.prompts, given.steps, given.repeats, given.limit = 2, 1, 1, 5.0
    # Run the cases.
    start = time.perf_counter()
    model = load_model()
    given.device, rows = device_of(model), []
    if "fit" in given.cases:
        rows += fit_case(model, given)
    if "vectors" in given.cases:
        rows += vector_cases(model, given)
    if "load" in given.cases:
        rows += load_cases(given)
    # Record the table with its provenance, and show it.
    table = pd.DataFrame(rows, columns=COLUMNS).fillna({"note": ""})
    sizes = {name: getattr(given, name) for name in ("prompts", "steps", "repeats", "limit")}
    origin = provenance(model, **sizes, gpu=given.device.type == "cuda")
    record(table, given.out, origin | {"wall_seconds": round(time.perf_counter() - start, 1)})
    shown = table.drop(columns=["median", "cpu_seconds", "repeats"])
    print(shown.to_string(index=False, na_rep="", float_format="{:.4g}".format))
    print(f"\nRecorded in {given.out}: {origin['device']}, {origin['threads']} threads")


if __name__ == "__main__":
    main()

"""Run the benchmarks on BOOK_MODEL and BOOK_DEVICE, print the table, and record it with its provenance (``make bench``)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from benchmarks import fits, growth, loads, vectors
from benchmarks.check import judge
from benchmarks.floor import fit_flops, product_rates
from benchmarks.timing import Variant, compare, timed
from helpers.activation_scaling.grid import METHODS, PAPER_VALUES
from helpers.activation_scaling.interventions import Intervention
from helpers.activation_scaling.many import Job, room
from helpers.activation_scaling.objective import Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.models.load import device_of, load_model
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.search import search_paths
from helpers.prompts.prompts import Prompts
from helpers.prompts.tasks import make_task
from helpers.results.records import provenance, record
from helpers.settings import SETTINGS

CASES = ("products", "fit", "vectors", "growth", "load")
COLUMNS = [
    "case",
    "variant",
    "size",
    "seconds",
    "median",
    "cpu_seconds",
    "repeats",
    "peak_gb",
    "gflops",
    "ratio_plain",
    "ratio_floor",
]
COLUMNS += ["difference", "exponent", "exponent_low", "exponent_high", "note"]
GRID = list(product(PAPER_VALUES, repeat=3))  # λ_F, λ_M, m
EPOCHS = 25  # of the paper's grid
NAMES = ("plain loop", "batched loop", "nnsight", "ours", "ours, bfloat16", "ours, together")
PAIRS, TOKENS, KEEP = 2, 13, 10  # of path patching; of path search

Row = dict[str, Any]
Way = Callable[[Sequence[Job], Prompts, int], None]


def ways(model: TransformerBridge, name: str, at_once: int) -> dict[str, Way]:
    """The ways of fitting, by what the table calls them; the first is the one that the others are held against."""
    found: dict[str, Way] = {
        "plain loop": partial(fits.plain, model),
        "batched loop": partial(fits.batched, model),
    }
    if find_spec("nnsight") is not None:
        found["nnsight"] = partial(
            fits.nnsight, fits.plain_hf(name, device_of(model)), model.tokenizer
        )
    found |= {"ours": partial(fits.ours, model), "ours, bfloat16": partial(fits.reduced, model)}
    return found | {"ours, together": partial(fits.together, model, at_once=at_once)}


def jobs(points: Points, method: str, settings: Iterable[tuple[float, float, float]]) -> list[Job]:
    """A job of the grid for each λ_F, λ_M and m."""
    return [
        Job(METHODS[method](points), Objective(m, lambda_f, lambda_m), 1e-2)
        for lambda_f, lambda_m, m in settings
    ]


def fit_case(model: TransformerBridge, task: str, given: argparse.Namespace) -> list[Row]:
    """A short fit in every way, the floor beside it, and the paper's grid of this task, extrapolated or run."""
    prompts = make_task(model, task, n_train=given.prompts, n_test=2, seed=0).train
    points, device = Points.of(model, prompts.n_pos), device_of(model)
    settings = sorted(GRID, key=lambda setting: setting != (1, 1, 1))  # this one first
    one = replace(jobs(points, "ActivScalar", settings[:1])[0], prompts=prompts)
    at_once = min(room(model, one), len(GRID))
    found, rates, rows = ways(model, SETTINGS.model, at_once), [], []

    def variant(name: str) -> Variant:
        share = at_once if name == "ours, together" else 1
        mine = jobs(points, "ActivScalar", settings[:share])

        def run() -> Intervention:
            found[name](mine, prompts, given.steps)
            return mine[0].intervention

        note = f"{share} settings in a batch" if share > 1 else ""
        return Variant(name, run, share, tolerance=None if "bfloat16" in name else 1e-2, note=note)

    def numbers(intervention: Intervention) -> torch.Tensor:
        measured = evaluate(model, intervention, prompts)
        return torch.tensor([measured.E0, measured.F, measured.M0 / measured.n_parameters])

    rates.append(product_rates(model, 2 * len(prompts) * prompts.n_pos))
    rows += compare(
        [variant(name) for name in found],
        numbers,
        device=device,
        repeats=given.repeats,
        limit=given.limit,
    )
    rates.append(product_rates(model, 2 * len(prompts) * prompts.n_pos))
    flops = fit_flops(model, len(prompts), prompts.n_pos, given.steps)
    for kind in ("hot", "cold"):
        rate = max(rate[kind] for rate in rates)
        rows.append({"variant": f"floor, {kind}", "seconds": flops / rate, "gflops": rate / 1e9})
    if "nnsight" not in found:
        rows.append(
            {
                "variant": "nnsight",
                "note": "skipped: not installed (pip install -c constraints.txt -e '.[bench]')",
            }
        )
    part = f"fit, {task}, {len(prompts)} prompts of {prompts.n_pos}, {given.steps} steps"
    n_fits = len(METHODS) * len(GRID)
    times = n_fits * EPOCHS / given.steps
    whole = [
        {"variant": row["variant"], "seconds": row["seconds"] * times, "note": "extrapolated"}
        for row in rows
        if "seconds" in row and row["variant"] not in given.whole_grid
    ]
    for name in given.whole_grid:
        way = found[name]
        run = timed(
            lambda: [way(jobs(points, method, GRID), prompts, EPOCHS) for method in METHODS], device
        )
        whole.append(
            {
                "variant": name,
                "seconds": run.seconds,
                "cpu_seconds": run.cpu,
                "repeats": 1,
                "peak_gb": run.peak_gb,
                "note": "run",
            }
        )
    return [*ratios(part, rows), *ratios(f"grid, {task}, {n_fits} fits of {EPOCHS} steps", whole)]


def ratios(case: str, rows: list[Row]) -> list[Row]:
    """The rows under the name of their case: how many times as fast as the first, and how many times the floor's time."""
    seconds = {row["variant"]: row["seconds"] for row in rows if "seconds" in row}
    reference = seconds.get("plain loop", next(iter(seconds.values()), None))
    for row in rows:
        if "seconds" in row:
            row["ratio_plain"] = reference / row["seconds"]
            if "floor, hot" in seconds:
                row["ratio_floor"] = row["seconds"] / seconds["floor, hot"]
    return [{"case": case, **row} for row in rows]


def vector_cases(model: TransformerBridge, given: argparse.Namespace) -> list[Row]:
    """Feature vectors of all heads, path patching and path search, each beside a plain way."""
    draw, cfg, device = torch.Generator().manual_seed(0), model.cfg, device_of(model)
    how = {"device": device, "repeats": given.repeats, "limit": given.limit}
    rows = []
    for n in (1, 4, 64):
        m = model.W_U[:, torch.randint(cfg.d_vocab, (n,), generator=draw).to(device)].T
        pair = [
            Variant("full matrices, a head at a time", lambda m=m: vectors.full_matrices(model, m))
        ]
        pair.append(Variant("ours, factored", lambda m=m: head_features(model, m)))
        rows += ratios(
            f"feature vectors of all heads, {n} observable{'s' * (n > 1)}",
            compare(pair, lambda found: found, **how),
        )
    clean, corrupted = torch.randint(1, cfg.d_vocab, (2, PAIRS, TOKENS), generator=draw).to(device)
    observable = Observable(((1, "first", 1.0), (2, "second", -1.0)), cfg.model_name)
    pair = [
        Variant(
            "a run for each head",
            lambda: vectors.patching_in_turn(model, clean, corrupted, observable),
        )
    ]
    pair.append(
        Variant("ours, two runs", lambda: path_patching(model, clean, corrupted, observable))
    )
    rows += ratios(
        f"path patching, {PAIRS} pairs of {TOKENS}", compare(pair, lambda found: found, **how)
    )

    def longest() -> torch.Tensor:
        found = search_paths(
            model,
            m[:1],
            lambda features, layer, chain: features.norm(dim=(0, -1)),
            max_length=2,
            keep=KEEP,
        ).found
        return torch.tensor([path.score for length in (1, 2) for path in found[length]])

    def by_itself() -> torch.Tensor:
        found = vectors.every_chain(model, m[:1], KEEP)
        return torch.tensor([score for length in (1, 2) for score, _ in found[length]])

    pair = [
        Variant("every chain by itself", by_itself),
        Variant("ours, a layer at a time", longest),
    ]
    return [*rows, *ratios("path search, up to 2 heads", compare(pair, lambda found: found, **how))]


def product_case(model: TransformerBridge, given: argparse.Namespace) -> list[Row]:
    """How fast this machine multiplies matrices of the model's shapes, in both precisions."""
    rates = {
        dtype: product_rates(model, 2 * given.prompts * TOKENS, getattr(torch, dtype))
        for dtype in ("float32", "bfloat16")
    }
    return [
        {"case": "matrix products", "variant": f"{dtype}, {kind}", "gflops": rate / 1e9}
        for dtype, both in rates.items()
        for kind, rate in both.items()
    ]


def run_cases(model: TransformerBridge, given: argparse.Namespace) -> pd.DataFrame:
    """The table of the cases asked for."""
    device, rows = device_of(model), []
    if "products" in given.cases:
        rows += product_case(model, given)
    if "fit" in given.cases:
        rows += [row for task in given.tasks for row in fit_case(model, task, given)]
    if "vectors" in given.cases:
        rows += vector_cases(model, given)
    if "growth" in given.cases:
        for axis in growth.AXES:
            grown = growth.grow(
                model.tokenizer, device, axis, repeats=given.repeats, points=3 if given.small else 4
            )
            rows += [{"case": "growth", **row} for row in grown]
    if "load" in given.cases:
        rows += [{"case": "load", **row} for row in loads.loads(device)]
        rows += [{"case": "chapters", **row} for row in loads.chapters(given.book)]
        rows += [{"case": "tests", **row} for row in loads.tests(given.book)]
    return pd.DataFrame(rows, columns=COLUMNS).fillna({"note": ""})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Benchmarks on BOOK_MODEL and BOOK_DEVICE."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("_build/bench/bench.csv"),
        help="the table; its provenance lands beside it",
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument(
        "--tasks", nargs="+", choices=("CCC", "IOI"), default=("IOI",), help="of the fits"
    )
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="of a short fit")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--limit",
        type=float,
        default=20.0,
        help="seconds after which a variant is timed by one run alone",
    )
    parser.add_argument(
        "--whole-grid",
        nargs="+",
        choices=NAMES,
        default=(),
        help="variants that run the paper's whole grid",
    )
    parser.add_argument(
        "--book",
        type=Path,
        default=Path(),
        help="where make book and make test ran, for their times",
    )
    parser.add_argument(
        "--small", action="store_true", help="least sizes, one repeat: to see that all of it runs"
    )
    given = parser.parse_args(arguments)
    if given.small:
        given.prompts, given.steps, given.repeats, given.limit = 2, 1, 1, 5.0
    start = time.perf_counter()
    model = load_model()
    table = run_cases(model, given)
    gpu = device_of(model).type == "cuda"
    sizes = {name: value for name, value in vars(given).items() if name not in ("out", "book")}
    origin = provenance(model, **sizes, gpu=gpu, targets=judge(table, gpu=gpu).to_dict("records"))
    record(table, given.out, origin | {"wall_seconds": round(time.perf_counter() - start, 1)})
    with pd.option_context(
        "display.width", 200, "display.max_rows", None, "display.max_colwidth", 60
    ):
        print(
            table.drop(columns=["median", "cpu_seconds", "repeats"]).to_string(
                index=False, na_rep="", float_format="{:.4g}".format
            )
        )
    print(
        f"\nRecorded in {given.out}: {origin['device']}, {origin['threads']} threads, {origin['date']}"
    )


if __name__ == "__main__":
    main()

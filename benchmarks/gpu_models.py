"""``make gpu``: the whole grid on the embedded model, and a random large model."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.bench import our_fit, plain_fit, timed
from helpers.activation_scaling import grid
from helpers.activation_scaling.attribution import activ_patch, activations
from helpers.activation_scaling.fitting import FitJob, fit
from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.load import freeze, load_model
from helpers.observable_propagation.features import head_features
from helpers.prompts.prompts import Prompts
from helpers.prompts.tasks import make_task
from helpers.results.records import provenance, read_record, record

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "book" / "results" / "pareto-smollm2.csv"  # the same grid on a CPU
MEMORY_GB = 24  # what the large model may take
LARGE = {
    "n_layer": 48,
    "n_head": 25,
    "n_embd": 1600,
    "n_positions": 1024,
    "vocab_size": 50257,
}  # 1.5 billion parameters
SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 64, "vocab_size": 99}
AXES = ["seed", "task", "method", "lambda_f", "lambda_m", "margin"]
Row = dict[str, Any]


def the_grid(given: argparse.Namespace) -> Iterator[Row]:
    """The Pareto chapter's grid with the sizes of the recorded table, and the plain loop."""
    table, made = read_record(RECORDED)
    sizes = {name: made["settings"][name] for name in ("n_train", "n_test", "epochs", "rates")}
    values = made["settings"]["values"]
    if given.small:
        sizes, values = sizes | {"n_train": 2, "n_test": 2, "epochs": 1}, [1]
    model = load_model("smollm2", str(given.device))
    each = {"n_train": sizes["n_train"], "n_test": sizes["n_test"]}
    prompts = {task: make_task(model, task, **each).train for task in ("CCC", "IOI")}
    our_fit(model, [job(model, prompts["IOI"], "ActivScalar", 1e-2)], 1)  # chooses kernels
    settings = grid.grid(lambda_f=values, lambda_m=values, margin=values)
    with tempfile.TemporaryDirectory() as folder:
        store = grid.store(model, Path(folder), **sizes)
        run = timed(lambda: grid.sweep_in_batches(model, settings, store, **sizes), given.device)
    table_here, batches = run.result
    origin = provenance(model, **sizes, values=values, seeds=1)
    record(
        table_here, given.out / "gpu-pareto.csv", origin | {"wall_seconds": round(run.seconds, 2)}
    )
    failed = int((table_here["error"] != "").sum())
    at_once = batches["at_once"].max()
    note = (
        f"{len(settings)} fits and their evaluation, at most {at_once} in a batch, {failed} failed"
    )
    yield {
        "what": "whole grid",
        "seconds": run.seconds,
        "peak_gb": batches["peak"].max() / 1e9 if given.device.type == "cuda" else None,
        "note": note,
    }
    if not failed:
        yield from compared(table_here, table)
    yield plain_row(model, prompts, sizes, len(settings), run.seconds, 1 if given.small else 2)


def job(model: TransformerBridge, prompts: Prompts, method: str, rate: float) -> FitJob:
    intervention = grid.METHODS[method](Points.of(model, prompts.n_pos))
    return FitJob(intervention, Objective(1.0, 1.0, 1.0), prompts, rate)


def plain_row(
    model: TransformerBridge,
    prompts: dict[str, Prompts],
    sizes: dict,
    n_fits: int,
    ours: float,
    steps: int,
) -> Row:
    """The plain loop's time for as many fits, from a few steps, and that it learns the same."""
    whole, off = 0.0, 0.0
    for some in prompts.values():
        for method in grid.METHODS:
            mine = job(model, some, method, sizes["rates"][method])
            plain_fit(model, mine, 1)
            run = timed(lambda mine=mine: plain_fit(model, mine, steps), some.tokens.device)
            whole += run.seconds / steps * sizes["epochs"] * n_fits / 4
            off = max(off, (run.result - our_fit(model, [mine], steps)).abs().max().item())
    note = f"extrapolated from {steps} steps of a fit of each method and task, without evaluation; "
    note += "difference: of θ after those"
    ratio = whole / ours
    return {"what": "plain loop", "seconds": whole, "ratio": ratio, "difference": off, "note": note}


def compared(mine: pd.DataFrame, recorded: pd.DataFrame) -> Iterator[Row]:
    """The grid's rows against the CPU's: largest differences and rank correlations."""
    both = mine.merge(recorded, on=AXES, suffixes=("", "_cpu"))
    for (task, method), rows in both.groupby(["task", "method"]):
        for name in ("E0", "F", "M0"):
            share = name == "M0"
            off = (rows[name] - rows[f"{name}_cpu"]).abs() / (rows["n_parameters"] if share else 1)
            alike = spearmanr(rows[name], rows[f"{name}_cpu"]).statistic if len(rows) > 2 else None
            unit = "a share of the parameters" if share else "in nats"
            note = f"from the recorded CPU table: largest difference, {unit}, "
            note += f"median {off.median():.2g}; ratio: rank correlation of {len(rows)} settings"
            yield {
                "what": f"{name}, {method}, {task}",
                "ratio": alike,
                "difference": off.max(),
                "note": note,
            }


def large(given: argparse.Namespace) -> Iterator[Row]:
    """A random GPT-2 of 1.5 billion parameters: a fit, a patching map, features of all heads."""

    def row(what: str, note: str, work: Callable[[], Any]) -> tuple[Row, Any]:
        """The row's ratio is the share that it takes of the memory it may take."""
        run = timed(work, given.device)
        ratio = run.peak_gb and run.peak_gb / MEMORY_GB
        return {
            "what": what,
            "seconds": run.seconds,
            "peak_gb": run.peak_gb,
            "ratio": ratio,
            "note": note,
        }, run.result

    made, model = row(
        "making it", "", lambda: random_gpt2(SMALL if given.small else LARGE, given.device)
    )
    # The checkpoint's parameters: the bridge holds query, key and value weights a second time.
    with torch.device("meta"):
        size = GPT2LMHeadModel(GPT2Config(**(SMALL if given.small else LARGE))).num_parameters()
    yield made | {"note": f"{size / 1e9:.2f} billion parameters, {4 * size / 1e9:.1f} GB"}
    n_prompts, n_pos, epochs = (2, 4, 1) if given.small else (8, 16, 25)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, model.cfg.d_vocab, (n_prompts, n_pos), generator=draw).to(
        given.device
    )
    answers = torch.ones_like(tokens[:, 0])
    prompts = Prompts(*(("",) * n_prompts,) * 3, tokens, answers, answers + 1)
    points, two = Points.of(model, n_pos), prompts.at([0, 1])
    how = {"learning_rate": 1e-2, "epochs": epochs}
    note = f"scalars, {n_prompts} prompts of {n_pos} tokens, {epochs} epochs"
    yield row(
        "a fit",
        note,
        lambda: fit(model, ActivScalar(points), prompts, Objective(1.0, 1.0, 0.1), **how),
    )[0]
    n_runs = 4 * len(points.layers) * n_pos
    note = f"every attn_out and mlp_out, 2 prompts of {n_pos} tokens: {n_runs:,} runs"
    yield row(
        "a patching map",
        note,
        lambda: activ_patch(model, two, points, activations(model, two.tokens.flip(0), points)),
    )[0]
    note = f"{model.cfg.n_layers * model.cfg.n_heads:,} heads, 4 observables"
    yield row(
        "feature vectors of all heads", note, lambda: head_features(model, model.W_U[:, :4].T)
    )[0]


def random_gpt2(sizes: dict[str, int], device: torch.device) -> TransformerBridge:
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    with torch.device(device):  # drawn where it stays
        hf = GPT2LMHeadModel(config).eval()
    words = Tokenizer(models.WordLevel({"<bos>": 0}, unk_token="<bos>"))
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<bos>")
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # TransformerLens reads a tokenizer again from where it was read
        PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
        boot = {
            "hf_model": hf,
            "tokenizer": AutoTokenizer.from_pretrained(folder),
            "device": str(device),
        }
        return freeze(TransformerBridge.boot_transformers("gpt2", **boot))

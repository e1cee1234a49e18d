"""Run on one GPU what needs one (``make gpu``): tests, the Pareto grid, a large model, a chapter.

The table is written after every row, so that a run that is killed leaves what it has. A step that
fails is a row with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pandas as pd
import torch
from nbclient import NotebookClient
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
from helpers.models.load import freeze, load_model, resolve_device
from helpers.observable_propagation.features import head_features
from helpers.prompts.prompts import Prompts
from helpers.prompts.tasks import make_task
from helpers.results.records import machine, provenance, read_record, record
from helpers.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "book" / "results" / "pareto-smollm2.csv"  # the same grid on a CPU
COLUMNS = ["step", "what", "seconds", "peak_gb", "ratio", "difference", "note"]
MEMORY_GB = 24  # what the large model may take
LARGE = {"n_layer": 48, "n_head": 25, "n_embd": 1600, "n_positions": 1024, "vocab_size": 50257}
SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 64, "vocab_size": 99}
AXES = ["seed", "task", "method", "lambda_f", "lambda_m", "margin"]
# Without the options of pyproject.toml and the conftest.py of notebooks: the machine need not
# have what they are for.
GPU_TESTS = ["-o", "addopts=", "--confcutdir=tests", "-p", "no:cacheprovider", "-m", "gpu"]
GPU_TESTS += ["--durations=10", "-ra", "tests/gpu"]
Row = dict[str, Any]


# Tests, and a chapter


def tests(given: argparse.Namespace) -> Iterator[Row]:
    """Run the tests marked ``gpu`` in a process; its output is kept beside the table."""
    report = given.out / "tests.xml"
    command = [sys.executable, "-m", "pytest", *GPU_TESTS, f"--junitxml={report}"]
    command += ["-k", given.keyword, *(["--gpu-stand-in"] if given.device.type == "cpu" else [])]
    with (given.out / "tests.txt").open("w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log)
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib
    counts = {name: int(suite[name]) for name in ("tests", "skipped", "failures", "errors")}
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - counts["skipped"] - failed
    note = f"{passed} passed, {failed} failed, {counts['skipped']} skipped"
    yield {"what": "tests marked gpu", "seconds": float(suite["time"]), "note": note}


def chapter(given: argparse.Namespace) -> Iterator[Row]:
    """A chapter as it stands, every cell, in the profile ``paper``, in a kernel of its own."""
    profile = "smoke" if given.small else "paper"
    (path,) = (ROOT / "book").glob(f"*/{given.chapter}.ipynb")
    notebook = nbformat.read(path, as_version=4)
    places, note = [str(ROOT), os.environ.get("PYTHONPATH", "")], f"{len(notebook.cells)} cells"
    with tempfile.TemporaryDirectory() as folder:
        if find_spec("myst_nb") is None:  # it only keeps numbers for the page
            Path(folder, "myst_nb.py").write_text("def glue(*given, **how): pass\n")
            places.insert(1, folder)
            note += "; numbers for the page are not kept, for lack of myst_nb"
        told = {"BOOK_PROFILE": profile, "BOOK_MODEL": "smollm2", "BOOK_PROGRESS": "off"}
        told |= {"BOOK_DEVICE": given.device.type}
        told |= {"PYTHONPATH": os.pathsep.join(filter(None, places))}
        where = {"metadata": {"path": str(path.parent)}}
        client = NotebookClient(notebook, kernel_name="python3", timeout=None, resources=where)
        run = timed(partial(client.execute, env=os.environ | told), torch.device("cpu"))
    yield {"what": f"{path.stem}, profile {profile}", "seconds": run.seconds, "note": note}


# The grid


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
    found, batches = run.result
    origin = provenance(model, **sizes, values=values, seeds=1)
    origin["wall_seconds"] = round(run.seconds, 2)
    record(found, given.out / "gpu-pareto.csv", origin)
    failed = int((found["error"] != "").sum())
    note = f"{len(settings)} fits and their evaluation, at most {batches['at_once'].max()} in a "
    note += f"batch, {failed} failed"
    yield {"what": "whole grid", "seconds": run.seconds, "peak_gb": run.peak_gb, "note": note}
    if not failed:
        yield from compared(found, table)
    # The plain loop's time for as many fits, from a few steps, and that it learns the same
    whole, off, steps = 0.0, 0.0, 1 if given.small else 2
    for some in prompts.values():
        for method, rate in sizes["rates"].items():
            mine = job(model, some, method, rate)
            plain_fit(model, mine, 1)
            plain = timed(lambda mine=mine: plain_fit(model, mine, steps), given.device)
            whole += plain.seconds / steps * sizes["epochs"] * len(settings) / 4
            off = max(off, (plain.result - our_fit(model, [mine], steps)).abs().max().item())
    note = f"extrapolated from {steps} steps of a fit of each method and task, without evaluation; "
    row = {"what": "plain loop", "seconds": whole, "ratio": whole / run.seconds, "difference": off}
    yield row | {"note": note + "difference: of θ after those"}


def job(model: TransformerBridge, prompts: Prompts, method: str, rate: float) -> FitJob:
    intervention = grid.METHODS[method](Points.of(model, prompts.n_pos))
    return FitJob(intervention, Objective(1.0, 1.0, 1.0), prompts, rate)


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
            row = {"what": f"{name}, {method}, {task}", "ratio": alike, "difference": off.max()}
            yield row | {"note": note}


# A large model


def large(given: argparse.Namespace) -> Iterator[Row]:
    """A random GPT-2 of 1.5 billion parameters: a fit, a patching map, features of all heads."""

    def row(what: str, note: str, work: Callable[[], Any]) -> tuple[Row, Any]:
        """The row's ratio is the share that it takes of the memory it may take."""
        run = timed(work, given.device)
        found = {"what": what, "seconds": run.seconds, "peak_gb": run.peak_gb, "note": note}
        return found | {"ratio": run.peak_gb and run.peak_gb / MEMORY_GB}, run.result

    sizes = SMALL if given.small else LARGE
    made, model = row("making it", "", lambda: random_gpt2(sizes, given.device))
    # The checkpoint's parameters: the bridge names query, key and value weights a second time.
    with torch.device("meta"):
        size = GPT2LMHeadModel(GPT2Config(**sizes)).num_parameters()
    yield made | {"note": f"{size / 1e9:.2f} billion parameters, {4 * size / 1e9:.1f} GB"}
    # Random prompts
    n_prompts, n_pos, epochs = (2, 4, 1) if given.small else (8, 16, 25)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, model.cfg.d_vocab, (n_prompts, n_pos), generator=draw)
    tokens = tokens.to(given.device)
    answers = torch.ones_like(tokens[:, 0])
    prompts = Prompts(*(("",) * n_prompts,) * 3, tokens, answers, answers + 1)
    points, two = Points.of(model, n_pos), prompts.at([0, 1])
    # A fit, a patching map, feature vectors
    note = f"scalars, {n_prompts} prompts of {n_pos} tokens, {epochs} epochs"
    how = {"objective": Objective(1.0, 1.0, 0.1), "learning_rate": 1e-2, "epochs": epochs}
    yield row("a fit", note, lambda: fit(model, ActivScalar(points), prompts, **how))[0]
    note = f"every attn_out and mlp_out, 2 prompts of {n_pos} tokens: "
    note += f"{4 * len(points.layers) * n_pos:,} runs"
    other = activations(model, two.tokens.flip(0), points)
    yield row("a patching map", note, lambda: activ_patch(model, two, points, other))[0]
    note = f"{model.cfg.n_layers * model.cfg.n_heads:,} heads, 4 observables"
    m = model.W_U[:, :4].T
    yield row("feature vectors of all heads", note, lambda: head_features(model, m))[0]


def random_gpt2(sizes: dict[str, int], device: torch.device) -> TransformerBridge:
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    with torch.device(device):  # drawn where it stays
        hf = GPT2LMHeadModel(config).eval()
    words = Tokenizer(models.WordLevel({"<bos>": 0}, unk_token="<bos>"))
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<bos>")
    # TransformerLens reads a tokenizer again from where it was read.
    with tempfile.TemporaryDirectory() as folder:
        PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
        boot = {"tokenizer": AutoTokenizer.from_pretrained(folder), "device": str(device)}
        return freeze(TransformerBridge.boot_transformers("gpt2", hf_model=hf, **boot))


# The command

STEPS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "tests": tests,
    "large": large,
    "grid": the_grid,
    "chapter": chapter,
}


def rows_of(name: str, given: argparse.Namespace) -> Iterator[Row]:
    """The rows of a step, then one more if it fails."""
    start = time.perf_counter()
    try:
        yield from STEPS[name](given)
    except Exception as error:
        traceback.print_exc()
        said = re.sub(r"\x1b\[\d*(;\d+)*m", "", str(error)).strip()
        note = f"failed: {type(error).__name__}: {said[-300:]}"
        yield {"what": name, "seconds": time.perf_counter() - start, "note": note}


def driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # there is none
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status is 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("_build/gpu"), help="folder of the tables")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--chapter", default="errata", help="which chapter to execute")
    parser.add_argument("--keyword", default="", help="only tests whose names have it")
    parser.add_argument("--small", action="store_true", help="smallest sizes; on a CPU too")
    given = parser.parse_args(arguments)
    given.device = resolve_device(SETTINGS.device)
    if given.device.type != "cuda" and not given.small:
        parser.error("there is no GPU here; --small shows on a CPU that all of it runs")
    given.out.mkdir(parents=True, exist_ok=True)
    origin = machine(given.device) | {"settings": {"small": given.small, "driver": driver()}}
    # Each row is written at once, so that a run that is cut off keeps what it has.
    start, rows = time.perf_counter(), []
    for name in given.steps:
        for row in rows_of(name, given):
            rows.append({"step": name, **row})
            table = pd.DataFrame(rows, columns=COLUMNS)
            # Not the sum of the rows: one of them is extrapolated.
            wall = {"wall_seconds": round(time.perf_counter() - start, 1)}
            record(table, given.out / "gpu.csv", origin | wall)
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    failed = [row for row in rows if re.search(r"^failed|[1-9]\d* failed", row["note"])]
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

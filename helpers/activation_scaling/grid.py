"""The grid of the Pareto chapter: fit a method at one setting, evaluate on train and test prompts.

``python -m helpers.activation_scaling.grid`` runs the paper's whole grid on ``BOOK_MODEL`` and
records its table. Killed and started again, it resumes. On a GPU it fits many settings in a batch.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.controls import shuffled
from helpers.activation_scaling.fitting import Fit, FitJob, fit_many
from helpers.activation_scaling.interventions import ActivScalar, Intervention, SteerVec
from helpers.activation_scaling.objective import Evaluation, Objective, count_places, prune
from helpers.activation_scaling.points import Points
from helpers.activation_scaling.together import evaluate_many
from helpers.models.load import fingerprint, load_model
from helpers.prompts.prompts import Task
from helpers.prompts.tasks import make_task
from helpers.results.records import check_path, provenance, record
from helpers.runs.sweep import Store, sweep
from helpers.runs.workers import connect
from helpers.settings import SETTINGS

METHODS = {"ActivScalar": ActivScalar, "SteerVec": SteerVec}
PAPER_VALUES = (0, 1, 10, 100)  # of λ_F, λ_M and m (section 4.2)


def grid(
    *,
    lambda_f: Iterable[float] = PAPER_VALUES,
    lambda_m: Iterable[float] = PAPER_VALUES,
    margin: Iterable[float] = PAPER_VALUES,
    tasks: Iterable[str] = ("CCC", "IOI"),
    seeds: Iterable[int] = (0,),
) -> list[dict[str, Any]]:
    """Every combination, for both methods: the settings of a sweep."""
    names = ("seed", "task", "method", "lambda_f", "lambda_m", "margin")
    values = product(seeds, tasks, METHODS, lambda_f, lambda_m, margin)
    return [dict(zip(names, combination)) for combination in values]


# Settings with the same prompts follow each other. Two entries: more would keep old models alive.
@lru_cache(maxsize=2)
def _task(model: TransformerBridge, name: str, n_train: int, n_test: int, seed: int) -> Task:
    return make_task(model, name, n_train=n_train, n_test=n_test, seed=seed)


def run_batch(
    model: TransformerBridge,
    *,
    method: str,
    task: str,
    seed: int,
    objectives: Sequence[dict[str, float]],
    n_train: int,
    n_test: int,
    epochs: int,
    rates: dict[str, float],
    n_fit: int | None = None,
    first_layer: int = 0,
    pruned: bool = False,
) -> dict[str, Any]:
    """Fit a method at many objectives and evaluate it on train and test prompts, in batches.

    Sites are attn_out and mlp_out at all layers and positions (Fig. 2, activation scaling).

    Args:
        n_fit: fit to the first so many of the ``n_train`` prompts; None fits to all of them.
        first_layer: the first one that is intervened on.
        pruned: whether negligible parameters are set to zero before anything is measured.

    Returns:
        ``rows``, one for each objective: E0, F and M0, minus the number of places with a parameter
        that counts (``M_places``), and E0 and F of the same parameters at shuffled points; or the
        ``error`` of a fit that failed. ``at_once``, the objectives in a batch; ``peak``, the most
        GPU memory in use, in bytes.
    """
    data = _task(model, task, n_train, n_test, seed)
    fit_to = data.train if n_fit is None else data.train.at(range(n_fit))
    points = Points.of(model, fit_to.n_pos, layers=range(first_layer, model.cfg.n_layers))
    jobs = []
    for objective in objectives:
        job = METHODS[method](points), Objective(**objective), fit_to, rates[method], seed
        jobs.append(FitJob(*job))
    done = fit_many(model, jobs, epochs=epochs)
    # Evaluate those that were fitted.
    fitted = [result.intervention for result in done.results if isinstance(result, Fit)]
    if pruned:
        for intervention in fitted:
            prune(intervention)
    controls = [shuffled(intervention, seed) for intervention in fitted]
    train = evaluate_many(model, [(one, fit_to) for one in fitted])
    both = evaluate_many(model, [(one, data.test) for one in [*fitted, *controls]])
    test, control = both[: len(fitted)], both[len(fitted) :]
    measured = iter(zip(fitted, train, test, control))
    rows = []
    for objective, result in zip(objectives, done.results):
        failed = not isinstance(result, Fit)
        row = {"error": f"FloatingPointError: {result}"} if failed else _row(*next(measured))
        rows.append({**objective, **row})
    return {"rows": rows, "at_once": done.at_once, "peak": done.peak}


def _row(
    intervention: Intervention, train: Evaluation, test: Evaluation, control: Evaluation
) -> dict[str, Any]:
    return {
        "E0_train": train.E0,
        "F_train": train.F,
        "E0": test.E0,
        "F": test.F,
        "M0": test.M0,
        "M_places": -count_places(intervention),
        "swapped": test.swapped,
        "n_parameters": test.n_parameters,
        "E0_control": control.E0,
        "F_control": control.F,
    }


def run(
    model: TransformerBridge,
    *,
    lambda_f: float,
    lambda_m: float,
    margin: float,
    **batch: Any,
) -> dict[str, Any]:
    """:func:`run_batch` of one objective.

    Raises:
        FloatingPointError: the fit failed.
    """
    objective = {"lambda_f": lambda_f, "lambda_m": lambda_m, "margin": margin}
    (row,) = run_batch(model, objectives=[objective], **batch)["rows"]
    if "error" in row:
        raise FloatingPointError(row["error"])
    return {name: row[name] for name in row if name not in objective}


def sweep_in_batches(
    model: TransformerBridge, settings: Sequence[dict[str, Any]], kept: Store, **sizes: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of :func:`sweep` over :func:`run`, by :func:`run_batch`, and a row for each batch.

    A batch is one result of the sweep: killed and started again, it repeats only the batch that
    was under way. A setting's seconds are its share of the batch's.
    """
    shared, batches = ("seed", "task", "method"), {}
    for setting in settings:
        objective = {name: setting[name] for name in setting if name not in shared}
        batches.setdefault(tuple(setting[name] for name in shared), []).append(objective)
    groups = [dict(zip(shared, key), objectives=batches[key]) for key in batches]
    done = sweep(groups, partial(run_batch, **sizes), kept, model=model, retry_failed=True)
    rows = []
    for batch in done.to_dict("records"):
        found = batch["rows"] if not batch["error"] else batch["objectives"]
        common = {name: batch[name] for name in (*shared, "error")}
        seconds = batch["seconds"] / len(found)
        rows += [{**common, **row, "seconds": seconds} for row in found]
    return pd.DataFrame(rows), done


def store(model: TransformerBridge, folder: Path, **sizes: Any) -> Store:
    """A store that keeps results apart by model, device and sizes; ``sweep`` adds the code."""
    context = {"weights": fingerprint(model), "device": model.W_U.device.type, **sizes}
    return Store(folder, context)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status is 1 if a setting failed."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.activation_scaling.grid",
        description="Run the Pareto grid on BOOK_MODEL and record its table. Finished settings are "
        "kept: run it again to resume, and to retry those that failed.",
    )
    help_out = "where the table goes (.csv), its provenance beside it; only without failed settings"
    parser.add_argument("--out", type=Path, required=True, help=help_out)
    values = {"type": _at_least(0), "nargs": "+"}
    parser.add_argument("--values", **values, default=PAPER_VALUES, help="of λ_F, λ_M, m")
    for name in ("lambda-f", "lambda-m", "margin"):
        parser.add_argument(f"--{name}", **values, help="its own values")
    fit_to = {"type": _at_least(1, int), "nargs": "+", "default": [None]}
    parser.add_argument("--n-fit", **fit_to, help="fit to so many of the training prompts")
    parser.add_argument("--first-layer", type=_at_least(0, int), default=0)
    parser.add_argument("--pruned", action="store_true", help="without negligible parameters")
    parser.add_argument("--first-seed", type=_at_least(0, int), default=0)
    for name, default in {"seeds": 1, "n-train": 8, "n-test": 8, "epochs": 25}.items():
        parser.add_argument(f"--{name}", type=_at_least(1, int), default=default)
    parser.add_argument("--rate-scalar", type=_at_least(1e-12), default=1e-2)
    parser.add_argument("--rate-vector", type=_at_least(1e-12), default=3e-3)
    given = parser.parse_args(arguments)
    # Refuse before any long work a place that cannot be written, or a scheduler that is not there.
    for name in ("values", "lambda_f", "lambda_m", "margin", "n_fit"):
        if len(set(chosen := getattr(given, name) or ())) < len(chosen):
            parser.error(f"--{name.replace('_', '-')}: one is given twice")
    if max(n_fit or 0 for n_fit in given.n_fit) > given.n_train:
        parser.error(f"--n-fit: there are {given.n_train} training prompts")
    try:
        check_path(given.out)
    except (ValueError, OSError) as error:
        parser.error(f"--out: {error}")
    connect()
    # The sweep
    model = load_model()
    rates = {"ActivScalar": given.rate_scalar, "SteerVec": given.rate_vector}
    sizes = {name: getattr(given, name) for name in ("n_train", "n_test", "epochs")}
    sizes |= {"rates": rates, "first_layer": given.first_layer, "pruned": given.pruned}
    axes = {}
    for name in ("lambda_f", "lambda_m", "margin"):
        chosen = getattr(given, name) or given.values
        axes[name] = [int(value) if value == int(value) else value for value in chosen]
    drawn, tables = range(given.first_seed, given.first_seed + given.seeds), []
    settings = grid(**axes, seeds=drawn)
    for n_fit in given.n_fit:
        each = sizes | {"n_fit": n_fit}
        kept = store(model, SETTINGS.cache / "sweeps", **each)
        if model.W_U.is_cuda and not SETTINGS.scheduler:
            found, _ = sweep_in_batches(model, settings, kept, **each)
        else:
            found = sweep(settings, partial(run, **each), kept, model=model, retry_failed=True)
        tables.append(found.assign(n_fit=n_fit or given.n_train))
    table = pd.concat(tables, ignore_index=True)
    failed, out = table["error"][table["error"] != ""], given.out
    if len(failed):  # must not replace a table without
        out = out.with_name(f"{out.stem}-incomplete.csv")
        for error, count in failed.value_counts().head(5).items():
            print(f"{count} settings failed with {error}", file=sys.stderr)
    record(table, out, provenance(model, **sizes, **axes, seeds=[*drawn]))
    print(f"{len(table)} settings, {len(failed)} of them failed; recorded in {out}")
    return int(len(failed) > 0)


def _at_least(least: float, kind: type = float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least} and finite")
        return value

    return number


if __name__ == "__main__":
    # Imported by name: results are kept under a digest that includes a function's module.
    from helpers.activation_scaling.grid import main as run_grid

    sys.exit(run_grid())

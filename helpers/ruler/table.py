"""The ruler's table: every method on every task, with every seed, at every budget of damage.

``make ruler`` runs ``python -m helpers.ruler.table``, which keeps finished settings, resumes where
it was killed, and compares its table with the recorded one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, whole
from helpers.models.load import fingerprint, load_model
from helpers.results.records import check_path, provenance, read_record, record
from helpers.ruler import instruction, learned, vectors  # noqa: F401  register their methods
from helpers.ruler.axes import (
    BUDGETS,
    MAIN,
    Benches,
    counted,
    gained,
    measured,
    strength_for,
)
from helpers.ruler.edits import Edit
from helpers.ruler.instruction import InFront
from helpers.ruler.methods import METHODS, Method, Seen
from helpers.ruler.tasks import TASKS, ruled
from helpers.runs.sweep import Store, sweep
from helpers.settings import SETTINGS

SIZES = {"n_train": 8, "n_test": 24, "n_transfer": 8, "epochs": 12, "n_texts": 192}
KEYS = ["task", "seed", "method", "budget"]


@lru_cache(maxsize=len(TASKS))  # a method goes through all tasks of a seed
def prepared(
    model: TransformerBridge, task: str, seed: int, epochs: int, n_texts: int, **sizes: int
) -> tuple[Seen, Benches]:
    """What methods see of a task, and all its prompts, ready to run."""
    drawn = ruled(model, task, seed=seed, **sizes)
    return Seen(model, drawn, epochs, n_texts), Benches(model, drawn)


@checked
def layers_of(method: Method, n_layers: int) -> list[int]:
    """The layers in front of which a method is tried: after a third and two thirds of them."""
    whole("n_layers", n_layers)
    if method.layers == "each":
        return sorted({max(1, n_layers // 3), max(1, 2 * n_layers // 3)})
    return [n_layers]


def chosen(seen: Seen, benches: Benches, method: Method) -> tuple[Edit, float, dict[str, float]]:
    """The edit at the layer with the greatest E_0 on training prompts at the main budget.

    Returns:
        The edit; its strength at that budget; and what it took to make one such edit, on average
        over the layers tried.
    """
    found, costs = [], []
    for layer in layers_of(method, seen.model.cfg.n_layers):
        before = seen.reused.copy()
        with counted(seen.model) as cost:
            edit = method.make(seen, layer)
        costs.append({name: cost[name] + seen.reused[name] - before[name] for name in cost})
        beta = 1.0 if isinstance(edit, InFront) else strength_for(benches.choose, edit, MAIN)
        (both,), base = benches.train.both(edit, [beta]), benches.train.base
        found.append((gained(both, base, seen.train)["E0"], edit, beta))
    _, edit, beta = max(found, key=lambda one: one[0])
    return edit, beta, pd.DataFrame(costs).mean().to_dict()


def measure(
    model: TransformerBridge,
    *,
    task: str,
    seed: int,
    method: str,
    kind: type[Method],
    **sizes: int,
) -> dict[str, Any]:
    """One method, of this name and class, on one task: ``rows``, one for each budget.

    The strength of the main budget is searched for; those of the others are √(budget/main) times as
    large, since damage grows with β². The budget 0 stands for β = 1, for methods that were fitted
    for it or that have no strength.
    """
    seen, benches = prepared(model, task, seed, **sizes)
    edit, main, cost = chosen(seen, benches, kind())
    betas = {0.0: 1.0} if kind.learned or isinstance(edit, InFront) else {}
    if not isinstance(edit, InFront):
        betas |= {budget: main * (budget / MAIN) ** 0.5 for budget in BUDGETS}
    made = {"layer": edit.layer, "size": edit.size, "places": edit.places, **cost}
    made["seconds_make"] = made.pop("seconds")
    rows = measured(benches, edit, list(betas.values()))
    return {"rows": [{"budget": budget, **row, **made} for budget, row in zip(betas, rows)]}


@checked
def table_of(
    model: TransformerBridge,
    *,
    folder: Path,
    tasks: Sequence[str] = TASKS,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    **sizes: int,
) -> pd.DataFrame:
    """The table, long: a row for each task, seed, method and budget.

    Args:
        folder: where finished settings are kept.
        sizes: see ``SIZES``.

    Raises:
        ValueError: an empty list, or a method that nobody registered.
        RuntimeError: a setting failed; names it and its error.
    """
    for what, given in (("tasks", tasks), ("methods", methods), ("seeds", seeds)):
        if isinstance(given, str) or given is not None and not len(given):
            raise ValueError(f"{what} must be a non-empty list, not {given!r}.")
    names = list(METHODS) if methods is None else list(methods)
    if unknown := [name for name in names if name not in METHODS]:
        raise ValueError(f"unknown method {unknown[0]!r}; the ruler has {', '.join(METHODS)}.")
    sizes = SIZES | sizes
    context = {"weights": fingerprint(model), "device": model.W_U.device.type, **sizes}
    store, done = Store(folder, context), []
    # A sweep for each method, so that its results depend on its own class and on no other's.
    for seed, name in product(seeds, names):
        settings = [{"task": task, "seed": seed, "method": name} for task in tasks]
        function = partial(measure, kind=METHODS[name], **sizes)
        done += sweep(settings, function, store, model=model, retry_failed=True).to_dict("records")
    rows = []
    for one in done:
        if one["error"]:
            which = f"{one['method']} on {one['task']} with seed {one['seed']}"
            raise RuntimeError(f"{which} failed: {one['error']}")
        shared = {name: one[name] for name in ("task", "seed", "method")}
        share = one["seconds"] / len(one["rows"])
        for row in one["rows"]:
            gaps = " ".join(f"{gap:g}" for gap in row["gaps"])
            rows.append(shared | row | {"gaps": gaps, "seconds": share})
    return pd.DataFrame(rows)


@checked
def compared(table: pd.DataFrame, recorded: pd.DataFrame) -> pd.DataFrame:
    """Largest differences of E0, F and kl between two tables, by method, in nats.

    Returns:
        These, and how many rows of the first table they are of; methods that only one has are left
        out.

    Raises:
        ValueError: no row in common, or a number that is not finite.
    """
    for name in (*KEYS, "E0", "F", "kl"):
        if name not in table or name not in recorded:
            raise ValueError(f"a table has no column {name!r}: both need it.")
    both = table.merge(recorded, on=KEYS, suffixes=("", "_recorded"))
    if both.empty:
        raise ValueError("the two tables have no row in common.")
    differences = {"method": both["method"]}
    for name in ("E0", "F", "kl"):
        differences[name] = (both[name] - both[f"{name}_recorded"]).abs()
        if not np.isfinite(differences[name]).all():  # max() would leave it out
            raise ValueError(f"a difference of {name} is not finite.")
    by_method = pd.DataFrame(differences).groupby("method")
    return by_method.max().assign(rows=by_method.size())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.ruler.table",
        description="Measure every method on every task with BOOK_MODEL. Finished settings are "
        "kept: run it again to resume.",
    )
    parser.add_argument("--out", type=Path, required=True, help="where the table goes (.csv)")
    parser.add_argument("--recorded", type=Path, help="a recorded table to compare with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    given = parser.parse_args(arguments)
    # Refuse before any long work what cannot be written, read or measured.
    for name, values in (("seeds", given.seeds), ("tasks", given.tasks)):
        if len(set(values)) < len(values):
            parser.error(f"--{name}: one is given twice")
    if min(given.seeds) < 0:
        parser.error(f"--seeds: {min(given.seeds)} must be at least 0")
    try:
        check_path(given.out)
    except (ValueError, OSError) as error:
        parser.error(f"--out: {error}")
    former = None
    if given.recorded is not None:
        try:  # now, since --out may be the same file
            former = read_record(given.recorded)
        except (ValueError, OSError) as error:
            parser.error(f"--recorded: {error}")
    model = load_model()
    how: dict[str, Any] = {"tasks": list(given.tasks), "seeds": given.seeds}
    try:
        table = table_of(model, folder=SETTINGS.cache / "sweeps", **how)
    except RuntimeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    origin = provenance(model, **how, **SIZES)
    record(table, given.out, origin)
    print(f"{len(table)} rows recorded in {given.out}")
    if former is not None and former[1]["weights"] != origin["weights"]:
        print(f"Not compared: {given.recorded} is of another model, {former[1]['model']}.")
    elif former is not None:
        print(f"Largest differences from the {len(former[0])} recorded rows, in nats:")
        print(compared(table, former[0]).to_string())
    return 0


if __name__ == "__main__":
    # Imported by name: results are kept under a digest that includes a function's module.
    from helpers.ruler.table import main as run_table

    sys.exit(run_table())

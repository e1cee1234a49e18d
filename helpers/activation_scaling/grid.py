"""The grid of the Pareto chapter: fit one method at one setting, and measure it on train and test prompts.

``python -m helpers.activation_scaling.grid`` runs the paper's whole grid on the model of the settings and records its table; killed and
started again, it goes on where it was. On a GPU it fits as many settings at a time as memory has room for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.controls import shuffled
from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar, Intervention, SteerVec
from helpers.activation_scaling.many import Job, Result, fit_many, room
from helpers.activation_scaling.objective import NEGLIGIBLE, Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.models.load import fingerprint, load_model
from helpers.prompts.prompts import Prompts, Task
from helpers.prompts.tasks import make_task
from helpers.results.records import provenance, record
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


def run(
    model: TransformerBridge,
    *,
    method: str,
    task: str,
    lambda_f: float,
    lambda_m: float,
    margin: float,
    seed: int,
    n_train: int,
    n_test: int,
    epochs: int,
    rates: dict[str, float],
) -> dict[str, Any]:
    """E0, F and M0 on train and test prompts of one method at one setting, and of the control on the test prompts.

    ``M_rel`` counts parameters of at least 1 % of the largest one.

    Sites are attn_out and mlp_out at all layers and positions, as in Fig. 2 of the activation-scaling paper.
    """
    data = _task(model, task, n_train, n_test, seed)
    intervention = METHODS[method](Points.of(model, data.train.n_pos))
    objective = Objective(margin=margin, lambda_f=lambda_f, lambda_m=lambda_m)
    fit(
        model,
        intervention,
        data.train,
        objective,
        learning_rate=rates[method],
        epochs=epochs,
        seed=seed,
    )
    return measured(model, intervention, data, seed)


def measured(
    model: TransformerBridge, intervention: Intervention, data: Task, seed: int
) -> dict[str, Any]:
    """The row of a fitted intervention, as :func:`run` says."""
    train, test = (evaluate(model, intervention, half) for half in (data.train, data.test))
    control = evaluate(model, shuffled(intervention, seed), data.test)
    size = intervention.vec().detach().abs()
    return {
        "E0_train": train.E0,
        "F_train": train.F,
        "E0": test.E0,
        "F": test.F,
        "M0": test.M0,
        # M_0's threshold is absolute, and vectors' entries are small: the same count with a threshold in their own units.
        "M_rel": -int((size >= NEGLIGIBLE * size.max()).sum()),
        "swapped": test.swapped,
        "n_parameters": test.n_parameters,
        "E0_control": control.E0,
        "F_control": control.F,
    }


# Settings that share prompts follow each other. Kept for two, so that a model that is no longer used is not kept with them.
@lru_cache(maxsize=2)
def _task(model: TransformerBridge, name: str, n_train: int, n_test: int, seed: int) -> Task:
    return make_task(model, name, n_train=n_train, n_test=n_test, seed=seed)


class Batches:
    """:func:`run` for one setting at a time, which fits others of the sweep in the same batch and keeps them until asked.

    They share the prompts and the method. A sweep that is killed loses what was fitted ahead, and a batch's seconds all
    fall to its first setting; else it is the same sweep.

    Args:
        model: on a GPU, or on a CPU too, where a batch is of few settings and saves less.
        settings: the sweep's.
        sizes: ``n_train``, ``n_test``, ``epochs`` and ``rates`` of :func:`run`.
    """

    def __init__(
        self,
        model: TransformerBridge,
        settings: Sequence[Mapping[str, Any]],
        sizes: Mapping[str, Any],
    ) -> None:
        self.model, self.settings, self.sizes = model, settings, sizes
        self.__wrapped__ = partial(run, model, **sizes)  # results are kept under its digest
        self._ahead: dict[tuple, Result] = {}
        self._done: set[tuple] = set()
        self._room: dict[tuple[str, str], int] = {}

    def __call__(self, **setting: Any) -> dict[str, Any]:
        data = _task(
            self.model,
            setting["task"],
            self.sizes["n_train"],
            self.sizes["n_test"],
            setting["seed"],
        )
        if _key(setting) not in self._ahead:
            self._fit(setting, data.train)
        result = self._ahead.pop(_key(setting))
        if isinstance(result, FloatingPointError):
            raise result
        return measured(self.model, result.intervention, data, setting["seed"])

    def _fit(self, setting: dict[str, Any], prompts: Prompts) -> None:
        alike = [
            other
            for other in self.settings
            if all(other[name] == setting[name] for name in ("seed", "task", "method"))
        ]
        waiting = [other for other in alike if other != setting and _key(other) not in self._done]
        points = Points.of(self.model, prompts.n_pos)
        rate, kind = self.sizes["rates"][setting["method"]], METHODS[setting["method"]]
        jobs = [
            Job(
                kind(points),
                Objective(**{name: one[name] for name in ("margin", "lambda_f", "lambda_m")}),
                rate,
                one["seed"],
                prompts=prompts,
            )
            for one in [setting, *waiting]
        ]
        where = setting["task"], setting["method"]
        if where not in self._room:
            self._room[where] = room(self.model, jobs[0])
        jobs = jobs[: self._room[where]]
        done = fit_many(self.model, jobs, epochs=self.sizes["epochs"], at_once=len(jobs))
        if done.at_once < len(jobs):  # memory ran out on the way
            self._room[where] = done.at_once
        self._ahead = dict(zip(map(_key, [setting, *waiting]), done.results))
        self._done |= self._ahead.keys()


def _key(setting: Mapping[str, Any]) -> tuple:
    return tuple(sorted(setting.items()))


def store(model: TransformerBridge, folder: Path, **sizes: Any) -> Store:
    """A store whose results are kept apart by the model, the device and the sizes of a run, and
    by the code that :func:`sweep` runs."""
    context = {
        "weights": fingerprint(model),
        "device": model.W_U.device.type,
        **sizes,
    }
    return Store(folder, context)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Run the Pareto grid on BOOK_MODEL and record its table."
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="where the table goes; its provenance lands beside it",
    )
    parser.add_argument(
        "--values", type=float, nargs="+", default=PAPER_VALUES, help="of λ_F, λ_M and m"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--n-train", type=int, default=8)
    parser.add_argument("--n-test", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--rate-scalar", type=float, default=1e-2)
    parser.add_argument("--rate-vector", type=float, default=3e-3)
    given = parser.parse_args(arguments)
    connect()  # refuse a scheduler that does not answer before any long work
    model = load_model()
    rates = {"ActivScalar": given.rate_scalar, "SteerVec": given.rate_vector}
    sizes = {
        "n_train": given.n_train,
        "n_test": given.n_test,
        "epochs": given.epochs,
        "rates": rates,
    }
    values = [int(value) if value == int(value) else value for value in given.values]
    settings = grid(lambda_f=values, lambda_m=values, margin=values, seeds=range(given.seeds))
    kept = store(model, SETTINGS.cache / "sweeps", **sizes)
    alone = (
        model.W_U.is_cuda and not SETTINGS.scheduler
    )  # else each worker takes one setting after the other
    one = Batches(model, settings, sizes) if alone else partial(run, model, **sizes)
    table = sweep(settings, one, kept)
    record(table, given.out, provenance(model, **sizes, values=values, seeds=given.seeds))
    print(
        f"{len(table)} settings, {int((table['error'] != '').sum())} of them failed; recorded in {given.out}"
    )


if __name__ == "__main__":
    # As the module that chapters import: a store's results are kept under the code of functions, which names their module.
    from helpers.activation_scaling.grid import main as run_grid

    run_grid()

"""The Pareto grid: a setting against fitting by hand, and recorded rows computed again."""

import runpy
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest

import helpers.models.load
import helpers.settings
from helpers.activation_scaling import grid
from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.objective import Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.models.load import fingerprint
from helpers.prompts.tasks import make_task
from helpers.results.records import read_record
from helpers.runs import workers as cluster
from helpers.runs.sweep import sweep

pytestmark = pytest.mark.integration
SIZES = {"n_train": 2, "n_test": 2, "epochs": 1, "rates": {"ActivScalar": 1e-2, "SteerVec": 1e-3}}
RECORDS = sorted((Path(__file__).parents[2] / "book" / "results").glob("pareto-*.csv"))


def test_the_paper_s_grid_has_64_settings_for_each_method_and_task():
    settings = grid.grid()
    assert len(settings) == 64 * 2 * 2
    assert len({tuple(setting.items()) for setting in settings}) == len(settings)


def test_a_setting_gives_what_fitting_and_evaluating_by_hand_gives(smollm2):
    setting = {
        "method": "ActivScalar",
        "task": "IOI",
        "lambda_f": 1,
        "lambda_m": 1,
        "margin": 10,
        "seed": 3,
    }
    row = grid.run(smollm2, **setting, **SIZES)
    data = make_task(smollm2, "IOI", n_train=2, n_test=2, seed=3)
    scalars = ActivScalar(Points.of(smollm2, data.train.n_pos))
    fit(
        smollm2,
        scalars,
        data.train,
        Objective(margin=10, lambda_f=1, lambda_m=1),
        learning_rate=1e-2,
        epochs=1,
        seed=3,
    )
    test = evaluate(smollm2, scalars, data.test)
    assert row["E0"] == pytest.approx(test.E0, abs=1e-3) and row["F"] == pytest.approx(
        test.F, abs=1e-3
    )
    assert row["E0_train"] == pytest.approx(evaluate(smollm2, scalars, data.train).E0, abs=1e-3)
    assert row["E0_control"] != pytest.approx(row["E0"], abs=1e-6)
    # A layer left alone, and a fit to the first prompt only, change the result.
    upper = grid.run(smollm2, **setting, **SIZES, first_layer=1, pruned=True)
    assert upper["n_parameters"] == row["n_parameters"] * 29 // 30
    one = grid.run(smollm2, **setting, **SIZES, n_fit=1)
    fit(
        smollm2,
        scalars,
        data.train.at([0]),
        Objective(margin=10, lambda_f=1, lambda_m=1),
        learning_rate=1e-2,
        epochs=1,
        seed=3,
    )
    assert one["E0"] == pytest.approx(evaluate(smollm2, scalars, data.test).E0, abs=1e-3)


def test_a_sweep_in_batches_gives_the_rows_of_a_sweep_of_single_fits(smollm2, tmp_path):
    settings = grid.grid(lambda_f=[0, 1], lambda_m=[1], margin=[10], tasks=["IOI"])
    kept = grid.store(smollm2, tmp_path, **SIZES)
    table, batches = grid.sweep_in_batches(smollm2, settings, kept, **SIZES)
    assert batches["at_once"].tolist() == [2, 2], "one batch for each method"
    assert table["seconds"].sum() == pytest.approx(batches["seconds"].sum())
    for row in table.to_dict("records"):
        setting = {name: row[name] for name in settings[0]}
        single = grid.run(smollm2, **setting, **SIZES)
        assert {name: row[name] for name in single} == pytest.approx(single, rel=1e-2, abs=1e-2)
    assert table["F_train"].nunique() > 2


def test_a_setting_that_fails_in_a_batch_is_a_row_with_its_error(smollm2, tmp_path, monkeypatch):
    settings = grid.grid(lambda_f=[0, 1], lambda_m=[1], margin=[10], tasks=["IOI"])[:2]
    real = grid.fit_many

    def one_fails(model, jobs, **how):
        done = real(model, jobs, **how)
        return replace(done, results=[FloatingPointError("no number"), *done.results[1:]])

    monkeypatch.setattr(grid, "fit_many", one_fails)
    kept = grid.store(smollm2, tmp_path, **SIZES)
    table, _ = grid.sweep_in_batches(smollm2, settings, kept, **SIZES)
    assert table["error"].tolist() == ["FloatingPointError: no number", ""]
    assert table["E0"].isna().tolist() == [True, False]


def test_a_process_of_this_machine_loads_the_model_by_its_name_and_gives_what_this_one_gives(
    smollm2, tmp_path, monkeypatch
):
    settings = grid.grid(lambda_f=[1], lambda_m=[1], margin=[0], tasks=["IOI"])
    run, tables = partial(grid.run, **SIZES), []
    for where in ("", "local:1"):  # test_workers.py has two
        monkeypatch.setattr(cluster, "SETTINGS", replace(cluster.SETTINGS, scheduler=where))
        kept = grid.store(smollm2, tmp_path / f"store{where}", **SIZES)
        tables.append(sweep(settings, run, kept, model=smollm2))
    here, there = tables
    assert (there["error"] == "").all() and (here["error"] == "").all()
    for name in ("E0_train", "E0", "F", "M0"):  # threads add up in another order
        expected = pytest.approx(here[name].to_list(), rel=0.01, abs=0.01)
        assert there[name].to_list() == expected, name


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_the_command_goes_on_with_what_an_import_of_the_module_has_computed(
    smollm2, tmp_path, monkeypatch
):
    """Run by name, a module is ``__main__``, and must find the results of the imported one."""
    monkeypatch.setattr(grid, "SETTINGS", replace(grid.SETTINGS, cache=tmp_path))
    for module in (grid, helpers.models.load):
        monkeypatch.setattr(module, "load_model", lambda: smollm2)
    options = "--values 0 --n-train 2 --n-test 2 --epochs 1 --out".split()
    grid.main([*options, str(tmp_path / "import.csv")])
    kept = sorted((tmp_path / "sweeps").glob("*.json"))
    monkeypatch.setattr(sys, "argv", ["grid.py", *options, str(tmp_path / "command.csv")])
    monkeypatch.setattr(helpers.settings, "SETTINGS", grid.SETTINGS)
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_module(grid.__name__, run_name="__main__", alter_sys=True)
    assert len(kept) == 4 and sorted((tmp_path / "sweeps").glob("*.json")) == kept
    assert (tmp_path / "command.csv").read_bytes() == (tmp_path / "import.csv").read_bytes()


@pytest.mark.skipif(not RECORDS, reason="this copy has no recorded grid")
@pytest.mark.parametrize("draw", range(2))
def test_recorded_rows_drawn_at_random_are_found_again(smollm2, draw):
    table, origin = read_record(Random(draw).choice(RECORDS))
    if origin["weights"] != fingerprint(smollm2):
        pytest.skip("recorded on another model")
    row = table[table["error"] == ""].sample(1, random_state=draw).iloc[0].to_dict()
    setting = {
        name: row[name] for name in ("method", "task", "lambda_f", "lambda_m", "margin", "seed")
    }
    sizes = {name: origin["settings"][name] for name in ("n_train", "n_test", "epochs", "rates")}
    for name in {"first_layer", "pruned"} & set(origin["settings"]):  # newer records have these
        sizes[name] = origin["settings"][name]
    if "n_fit" in row:
        sizes["n_fit"] = int(row["n_fit"])
    again = grid.run(smollm2, **setting, **sizes)
    # Adam follows a gradient's sign, so rounding on another machine moves parameters by a step.
    for name in ("E0_train", "E0", "F"):
        assert again[name] == pytest.approx(row[name], rel=0.1, abs=0.1), name

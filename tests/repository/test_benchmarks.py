"""The benchmarks: every way of a case computes the same, and the counts and fits beside the times are right. No times here."""

from __future__ import annotations

import math

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat.v4 import new_code_cell, new_notebook, new_output
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import check, fits, floor, growth, loads, run, timing, vectors
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.many import Job
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.run import last_logits
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.search import search_paths
from helpers.prompts.prompts import Prompts, Task
from helpers.results.records import read_record
from tests.conftest import random_hf

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
IN_32_BITS = ("EleutherAI/gpt-neo-1.3B", "HuggingFaceTB/SmolLM2-135M-Instruct")  # in parts


@pytest.fixture(scope="module")
def prompts(tiny) -> Prompts:
    return Prompts.of(
        tiny, ["w1 w2 w3", "w1 w5 w6", "w1 w8 w9"], ["w10", "w11", "w12"], ["w13", "w14", "w15"]
    )


def job(model, prompts, kind=ActivScalar, lambda_f=0.5) -> Job:
    return Job(
        kind(Points.of(model, prompts.n_pos), dtype=torch.float64),
        Objective(1.0, lambda_f, 0.1),
        1e-2,
        0,
        0.1,
    )


def learned(way, model, prompts, **how) -> torch.Tensor:
    mine = job(model, prompts, **how)
    way([mine], prompts, 4)
    return mine.intervention.vec().detach()


# Equivalence


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_every_way_of_fitting_learns_the_same(tiny, tokenizer, prompts, kind) -> None:
    ways = {
        name: lambda *work, way=getattr(fits, name): way(tiny, *work)
        for name in ("batched", "ours")
    }
    ways["together"] = lambda *work: fits.together(tiny, *work, at_once=1)
    ways["nnsight"] = lambda *work: fits.nnsight(
        random_hf(tiny.cfg.model_name).requires_grad_(False), tokenizer, *work
    )
    expected = learned(lambda *work: fits.plain(tiny, *work), tiny, prompts, kind=kind)
    close = 1e-5 if tiny.cfg.model_name in IN_32_BITS else 1e-6
    for name, way in ways.items():
        assert (learned(way, tiny, prompts, kind=kind) - expected).abs().max() < close, name
    other = learned(ways["ours"], tiny, prompts, kind=kind, lambda_f=20.0)
    assert (other - expected).abs().max() > 100 * close, "another objective would be seen"


def test_no_way_of_fitting_leaves_a_hook(tiny, prompts) -> None:
    before = last_logits(tiny, prompts.tokens)
    for way in (fits.plain, fits.batched, fits.ours, fits.reduced):
        way(tiny, [job(tiny, prompts)], prompts, 1)
    assert torch.equal(last_logits(tiny, prompts.tokens), before)


def test_reduced_precision_runs_the_products_in_bfloat16(tokenizer) -> None:
    model = growth.random_model(tokenizer, CPU, layers=1, heads=2, d_model=32)
    some, seen = growth.random_prompts(model, 2, 4), set()
    scalars = Job(ActivScalar(Points.of(model, 4)), Objective(1.0), 1e-2)
    with model.hooks(
        fwd_hooks=[("blocks.0.attn.hook_v", lambda value, hook: seen.add(value.dtype))]
    ):
        fits.reduced(model, [scalars], some, 1)
    assert seen == {torch.bfloat16} and scalars.intervention.vec().dtype == torch.float32


def test_full_matrices_give_the_factored_feature_vectors(tiny) -> None:
    m = tiny.W_U[:, :5].T
    assert torch.allclose(
        vectors.full_matrices(tiny, m), head_features(tiny, m), rtol=1e-10, atol=1e-12
    )


def test_patching_a_head_at_a_time_gives_path_patching(tiny) -> None:
    clean, corrupted = torch.arange(1, 15).view(2, 7), torch.arange(31, 45).view(2, 7)
    observable = Observable.of(tiny, {"w3": 1, "w5": -1})
    expected = path_patching(tiny, clean, corrupted, observable)
    assert torch.allclose(
        vectors.patching_in_turn(tiny, clean, corrupted, observable), expected, rtol=1e-5, atol=1e-6
    )
    assert expected.abs().max() > 1e-3


def test_every_chain_by_itself_gives_the_path_search(tiny) -> None:
    m = tiny.W_U[:, :1].T
    found = search_paths(
        tiny, m, lambda features, layer, chain: features.norm(dim=(0, -1)), max_length=2, keep=4
    ).found
    for length, chains in vectors.every_chain(tiny, m, 4).items():
        assert [
            tuple((part.layer, part.head) for part in path.chain) for path in found[length]
        ] == [chain for _, chain in chains]
        assert [path.score for path in found[length]] == pytest.approx(
            [score for score, _ in chains]
        )


# Times


def test_variants_that_differ_are_refused_before_any_is_timed() -> None:
    runs = []
    right = timing.Variant("right", lambda: runs.append("right") or torch.ones(2))
    wrong = timing.Variant("wrong", lambda: runs.append("wrong") or torch.tensor([1.0, 1.5]))
    with pytest.raises(ValueError, match="'wrong' does not compute what 'right' computes.*0.5"):
        timing.compare([right, wrong], lambda found: found, device=CPU)
    assert runs == ["right", "wrong"]


def test_numbers_that_are_not_finite_are_no_agreement() -> None:
    pair = [
        timing.Variant("right", lambda: torch.ones(1)),
        timing.Variant("wrong", lambda: torch.tensor([math.nan])),
    ]
    with pytest.raises(ValueError, match="does not compute"):
        timing.compare(pair, lambda found: found, device=CPU)


def test_variants_take_turns_and_slow_ones_run_once() -> None:
    runs = []
    variants = [
        timing.Variant(name, lambda name=name: runs.append(name) or torch.ones(1)) for name in "ab"
    ]
    rows = timing.compare(variants, lambda found: found, device=CPU, repeats=2)
    assert runs == ["a", "b"] * 3 and [row["repeats"] for row in rows] == [2, 2]
    runs.clear()
    rows = timing.compare(variants, lambda found: found, device=CPU, repeats=2, limit=0.0)
    assert runs == ["a", "b"] and [row["repeats"] for row in rows] == [1, 1]


def test_times_are_of_one_unit_and_inexact_variants_say_how_inexact(monkeypatch) -> None:
    monkeypatch.setattr(timing, "timed", lambda run, device: timing.Run(run(), 8.0, 6.0, None))
    pair = [
        timing.Variant("one", lambda: torch.ones(1)),
        timing.Variant("four", lambda: torch.full((1,), 1.5), 4, tolerance=None),
    ]
    one, four = timing.compare(pair, lambda found: found, device=CPU)
    assert (one["seconds"], one["cpu_seconds"], one["difference"]) == (8.0, 6.0, 0.0)
    assert (four["seconds"], four["median"], four["cpu_seconds"], four["difference"]) == (
        2.0,
        2.0,
        1.5,
        0.5,
    )


# The floor


@pytest.mark.parametrize("steps", [1, 3])
def test_the_operations_of_a_fit_are_those_that_torch_counts(tiny, prompts, steps) -> None:
    with FlopCounterMode(display=False) as counted:
        fits.ours(tiny, [job(tiny, prompts)], prompts, steps)
    assert counted.get_total_flops() == floor.fit_flops(tiny, len(prompts), prompts.n_pos, steps)


def test_rates_are_of_the_products_that_were_asked_for(tiny, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(floor, "OUT_OF_CACHE", 1 << 18)
    monkeypatch.setattr(
        floor,
        "_rate",
        lambda weights, rows: (
            asked.append((len(weights), weights[0].dtype, rows)) or float(len(asked))
        ),
    )
    rates = floor.product_rates(tiny, 12, torch.bfloat16, repeats=2)
    assert rates == {"cold": 2.0, "hot": 4.0}
    (n_cold, dtype, rows), (n_hot, _, large) = asked[0], asked[2]
    assert dtype == torch.bfloat16 and (rows, large) == (12, floor.LARGE) and n_cold > n_hot


# Growth


def test_an_exponent_and_its_interval_are_found() -> None:
    sizes = np.array([1, 2, 4, 8, 16])
    exact = growth.exponent(sizes, 3 * sizes**1.5)
    assert (
        exact["exponent"] == pytest.approx(1.5)
        and exact["exponent_high"] - exact["exponent_low"] < 1e-6
    )
    noisy = growth.exponent(sizes, 3 * sizes**1.5 * np.array([1.1, 0.9, 1.1, 0.9, 1.1]))
    assert noisy["exponent_low"] < 1.5 < noisy["exponent_high"]
    with pytest.raises(ValueError, match="three different sizes"):
        growth.exponent([1, 2, 2], [1, 2, 2])


@pytest.mark.parametrize("axis", growth.AXES)
def test_each_axis_grows_the_work_it_names(tokenizer, monkeypatch, axis) -> None:
    monkeypatch.setattr(
        growth,
        "BASE",
        {"prompts": 2, "tokens": 3, "settings": 1, "heads": 2, "d_model": 32, "layers": 1},
    )
    monkeypatch.setitem(growth.AXES, axis, (2, 4, 8) if axis != "parameters" else (32, 64, 128))
    flops = []
    for value in growth.AXES[axis]:
        size, work = growth.work(tokenizer, CPU, axis, value)
        with FlopCounterMode(display=False) as counted:
            work()
        flops.append((size, counted.get_total_flops()))
    (small, few), (_, _), (large, many) = flops
    assert large > small and many / few > 0.5 * large / small
    *points, fitted = growth.grow(tokenizer, CPU, axis, repeats=1)
    assert [row["size"] for row in points] == [size for size, _ in flops]
    assert fitted["exponent_low"] <= fitted["exponent"] <= fitted["exponent_high"]


# Chapters and tests


def test_the_chapters_of_a_build_are_listed_with_their_memory(tmp_path, monkeypatch) -> None:
    assert "make book first" in loads.chapters(tmp_path)[0]["note"]
    cache = get_cache(tmp_path / "_build" / ".jupyter_cache")
    runs = {"one": {"seconds": 3.0, "peak_gb": 1.5}, "two": {"seconds": 4.0, "peak_gb": 2.5}}
    paths = [tmp_path / f"{name}.ipynb" for name in (*runs, "not-run")]
    for path in paths:
        shown = new_output(
            "display_data",
            {"text/html": "ran"},
            metadata={"text/html": {"run": runs.get(path.stem, {})}},
        )
        notebook = new_notebook(
            cells=[new_code_cell(path.stem, outputs=[new_output("display_data"), shown])]
        )
        nbformat.write(notebook, path)
        if path.stem in runs:
            kept = CacheBundleIn(
                notebook, str(path), data={"execution_seconds": runs[path.stem]["seconds"]}
            )
            cache.cache_notebook_bundle(kept, check_validity=False)
    monkeypatch.setattr(loads, "notebooks", lambda: paths)
    *rows, whole = loads.chapters(tmp_path)
    assert [(row["variant"], row["seconds"], row["peak_gb"]) for row in rows] == [
        ("one", 3.0, 1.5),
        ("two", 4.0, 2.5),
    ]
    assert (whole["seconds"], whole["peak_gb"]) == (7.0, 2.5) and whole["note"].startswith("2 of 3")


def test_the_time_of_the_tests_is_read_from_their_report(tmp_path) -> None:
    assert "has not run" in loads.tests(tmp_path)[0]["note"]
    (tmp_path / "_build").mkdir()
    suite = '<testsuite name="pytest" errors="1" failures="2" skipped="0" tests="9" time="12.5"/>'
    (tmp_path / "_build" / "tests.xml").write_text(f"<testsuites>{suite}</testsuites>")
    assert loads.tests(tmp_path) == [
        {"variant": "make test", "seconds": 12.5, "note": "9 tests, 3 failed"}
    ]


# The run and its check


@pytest.fixture
def small_run(tokenizer, prompts, tiny, monkeypatch):
    """The command on a tiny model, with whatever arguments."""
    monkeypatch.setattr(run, "load_model", lambda: tiny)
    monkeypatch.setattr(loads, "load_model", lambda: tiny)
    monkeypatch.setattr(loads.subprocess, "run", lambda *command, **how: None)
    monkeypatch.setattr(
        run, "make_task", lambda model, name, **how: Task(name, "", prompts, prompts, {})
    )
    monkeypatch.setattr(
        fits, "plain_hf", lambda name, device: random_hf(tiny.cfg.model_name).requires_grad_(False)
    )
    monkeypatch.setattr(
        run, "METHODS", {"ActivScalar": lambda points: ActivScalar(points, dtype=torch.float64)}
    )
    monkeypatch.setattr(floor, "OUT_OF_CACHE", 1 << 16)
    monkeypatch.setattr(growth, "AXES", {"prompts": (1, 2, 3)})
    return run.main


def test_a_run_records_its_table_with_provenance(small_run, tmp_path, capsys) -> None:
    small_run(["--small", "--out", str(tmp_path / "bench.csv"), "--book", str(tmp_path)])
    table, origin = read_record(tmp_path / "bench.csv")
    assert set(table["case"].str.split(",").str[0]) >= {
        "matrix products",
        "fit",
        "grid",
        "growth",
        "load",
        "chapters",
        "path search",
    }
    fit = table[table["case"].str.startswith("fit")].set_index("variant")
    assert fit.loc["plain loop", "ratio_plain"] == 1 and fit.loc["floor, hot", "ratio_floor"] == 1
    ours = fit.loc["ours"]
    assert ours["ratio_plain"] == pytest.approx(fit.loc["plain loop", "seconds"] / ours["seconds"])
    assert ours["ratio_floor"] == pytest.approx(ours["seconds"] / fit.loc["floor, hot", "seconds"])
    assert set(fit.index) >= {
        "nnsight",
        "batched loop",
        "ours, bfloat16",
        "ours, together",
        "floor, cold",
    }
    grid = table[table["case"].str.startswith("grid")].set_index("variant")
    assert grid.loc["ours", "seconds"] == pytest.approx(ours["seconds"] * 64 * 25)
    assert (grid["note"] == "extrapolated").all()
    assert (
        origin["settings"]["small"] and origin["wall_seconds"] > 0 and origin["versions"]["torch"]
    )
    assert {row["met"] for row in origin["settings"]["targets"]} <= {True, False}
    assert "Recorded in" in capsys.readouterr().out


def test_the_whole_grid_runs_on_demand(small_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(run, "GRID", [(1, 1, 1), (0, 1, 0)])
    monkeypatch.setattr(run, "EPOCHS", 1)
    small_run(
        [
            "--small",
            "--cases",
            "fit",
            "--whole-grid",
            "ours, together",
            "--out",
            str(tmp_path / "bench.csv"),
        ]
    )
    grid = (
        read_record(tmp_path / "bench.csv")[0]
        .query("case.str.startswith('grid')")
        .set_index("variant")
    )
    assert (
        grid.loc["ours, together", "note"] == "run"
        and grid.loc["plain loop", "note"] == "extrapolated"
    )


def test_a_missing_nnsight_is_noted_and_the_rest_runs(small_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    small_run(["--small", "--cases", "fit", "--out", str(tmp_path / "bench.csv")])
    fit = (
        read_record(tmp_path / "bench.csv")[0]
        .query("case.str.startswith('fit')")
        .set_index("variant")
    )
    assert "not installed" in fit.loc["nnsight", "note"] and math.isnan(
        fit.loc["nnsight", "seconds"]
    )
    assert fit.loc["ours", "seconds"] > 0


def test_an_unknown_variant_of_the_whole_grid_is_refused_before_any_work(
    small_run, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(run, "load_model", lambda: pytest.fail("the model was loaded"))
    with pytest.raises(SystemExit):
        small_run(["--whole-grid", "theirs"])
    assert "theirs" in capsys.readouterr().err


def table_of(**ratios: float) -> pd.DataFrame:
    row = {"case": "fit, IOI", "variant": "ours", "difference": 0.0} | ratios
    return pd.DataFrame(
        [row, row | {"variant": "ours, bfloat16", "ratio_plain": 9.0, "difference": 0.2}]
    )


def test_targets_are_judged_by_their_bounds() -> None:
    judged = check.judge(table_of(ratio_floor=1.2, ratio_plain=4.0), gpu=False)
    assert judged["met"].tolist() == [True, False, False], "the last is fast enough and too inexact"
    assert check.judge(table_of(ratio_floor=1.3, ratio_plain=5.0), gpu=False)["met"].tolist() == [
        False,
        True,
        False,
    ]


def test_the_check_says_what_is_missed_by_its_exit_status(
    small_run, tmp_path, monkeypatch, capsys
) -> None:
    path = tmp_path / "bench.csv"
    assert check.main([str(path)]) == 1 and "make bench" in capsys.readouterr().err
    small_run(["--small", "--cases", "fit", "--out", str(path)])
    capsys.readouterr()
    monkeypatch.setattr(
        check,
        "TARGETS",
        [check.Target("no time at all", "fit", "ours", "ratio_plain", math.inf, least=True)],
    )
    assert check.main([str(path)]) == 1 and "MISSED" in capsys.readouterr().out
    monkeypatch.setattr(
        check, "TARGETS", [check.Target("any time", "fit", "ours", "ratio_plain", 0.0, least=True)]
    )
    assert check.main([str(path)]) == 0 and "met" in capsys.readouterr().out
    monkeypatch.setattr(
        check, "TARGETS", [check.Target("no case", "no", "ours", "ratio_plain", 0.0, least=True)]
    )
    assert check.main([str(path)]) == 1

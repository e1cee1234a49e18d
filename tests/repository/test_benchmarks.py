"""The benchmarks: every way of a case computes the same, and operations are counted right."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import bench
from helpers.activation_scaling.fitting import FitJob
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.run import last_logits
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.prompts.prompts import Prompts, Task
from helpers.results.records import read_record

pytestmark = pytest.mark.unit
IN_32_BITS = ("EleutherAI/gpt-neo-1.3B", "HuggingFaceTB/SmolLM2-135M-Instruct")  # in parts
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prompts(tiny) -> Prompts:
    return Prompts.of(
        tiny, ["w1 w2 w3", "w1 w5 w6", "w1 w8 w9"], ["w10", "w11", "w12"], ["w13", "w14", "w15"]
    )


def job(model, prompts, kind=ActivScalar, lambda_f=0.5) -> FitJob:
    intervention = kind(Points.of(model, prompts.n_pos), dtype=torch.float64)
    return FitJob(intervention, Objective(1.0, lambda_f, 0.1), prompts, 1e-2, 0, 0.1)


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
@pytest.mark.slow
def test_the_plain_loop_learns_what_a_fit_learns(tiny, prompts, kind) -> None:
    before = last_logits(tiny, prompts.tokens)
    expected = bench.plain_fit(tiny, job(tiny, prompts, kind), 4)
    close = 1e-5 if tiny.cfg.model_name in IN_32_BITS else 1e-6
    for n in (1, 2):
        mine = bench.our_fit(tiny, [job(tiny, prompts, kind) for _ in range(n)], 4)
        assert (mine - expected).abs().max() < close
    other = bench.our_fit(tiny, [job(tiny, prompts, kind, lambda_f=20.0)], 4)
    assert (other - expected).abs().max() > 100 * close, "another objective would be seen"
    assert torch.equal(last_logits(tiny, prompts.tokens), before), "a hook was left behind"


def test_full_matrices_give_the_factored_feature_vectors(tiny) -> None:
    m = tiny.W_U[:, :5].T
    full = bench.full_matrices(tiny, m)
    assert torch.allclose(full, head_features(tiny, m), rtol=1e-10, atol=1e-12)


def test_patching_a_head_at_a_time_gives_path_patching(tiny) -> None:
    pair = torch.arange(1, 15).view(2, 7), torch.arange(31, 45).view(2, 7)
    observable = Observable.of(tiny, {"w3": 1, "w5": -1})
    expected = path_patching(tiny, *pair, observable)
    in_turn = bench.patching_in_turn(tiny, *pair, observable)
    assert torch.allclose(in_turn, expected, rtol=1e-5, atol=1e-6)
    assert expected.abs().max() > 1e-3


def test_every_chain_by_itself_gives_the_path_search(tiny, monkeypatch) -> None:
    monkeypatch.setattr(bench, "KEEP", 4)
    m = tiny.W_U[:, :1].T
    assert torch.allclose(bench.every_chain(tiny, m).float(), bench.our_search(tiny, m))


@pytest.mark.parametrize("steps", [1, 3])
def test_the_operations_of_a_fit_are_those_that_torch_counts(tiny, prompts, steps) -> None:
    with FlopCounterMode(display=False) as counted:
        bench.our_fit(tiny, [job(tiny, prompts)], steps)
    expected = bench.fit_flops(tiny, len(prompts), prompts.n_pos, steps)
    assert counted.get_total_flops() == expected


@pytest.mark.parametrize("number", [1.5, math.nan])
def test_variants_that_differ_are_refused_before_any_is_timed(number) -> None:
    runs = []
    right = bench.Variant("right", lambda: runs.append("right") or torch.ones(2))
    wrong = bench.Variant("wrong", lambda: runs.append("wrong") or torch.tensor([1.0, number]))
    with pytest.raises(ValueError, match="'wrong' does not compute what 'right' computes"):
        bench.compare("case", [right, wrong], 2, CPU)
    assert runs == ["right", "wrong"]


def test_variants_take_turns_and_slow_ones_run_once(monkeypatch) -> None:
    runs = []
    variants = []
    for name in "ab":
        run = lambda name=name: runs.append(name) or torch.ones(1)  # noqa: E731
        variants.append(bench.Variant(name, run))
    rows = bench.compare("case", variants, 2, CPU)
    assert runs == ["a", "b"] * 3 and [row["repeats"] for row in rows] == [2, 2]
    runs.clear()
    monkeypatch.setattr(bench, "SLOW", 0.0)
    rows = bench.compare("case", variants, 2, CPU)
    assert runs == ["a", "b"] and [row["repeats"] for row in rows] == [1, 1]


@pytest.mark.slow
def test_a_run_records_its_table_with_provenance(tiny, prompts, tmp_path, monkeypatch) -> None:
    task = Task("IOI", "", prompts, prompts, {})
    monkeypatch.setattr(bench, "load_model", lambda: tiny)
    monkeypatch.setattr(bench.subprocess, "run", lambda *command, **how: None)
    monkeypatch.setattr(bench, "make_task", lambda model, name, **how: task)
    monkeypatch.setattr(bench, "OUT_OF_CACHE", 1 << 16)
    (tmp_path / "_build").mkdir()
    (tmp_path / "_build/timings.csv").write_text("chapter,cell,seconds\none,1,2\none,2,3\n")
    bench.main(["--small", "--out", str(tmp_path / "bench.csv"), "--book", str(tmp_path)])
    table, origin = read_record(tmp_path / "bench.csv")
    fit = table[table["case"].str.startswith("fit")].set_index("variant")["seconds"]
    ratios = table[table["case"].str.startswith("fit")].set_index("variant")
    assert ratios.loc["ours", "ratio_plain"] == pytest.approx(fit["plain loop"] / fit["ours"])
    assert ratios.loc["ours", "ratio_floor"] == pytest.approx(fit["ours"] / fit["floor, hot"])
    chapters = table[table["case"] == "chapters"].set_index("variant")["seconds"]
    assert chapters["one"] == chapters["all"] == 5
    assert {"load", "path search, up to 2 heads"} <= set(table["case"])
    assert origin["wall_seconds"] > 0 and origin["versions"]["torch"]

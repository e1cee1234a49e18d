"""Recorded fits: read where everything is the same, made anew where anything is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.activation_scaling import recorded
from helpers.activation_scaling.ascent import FitJob
from helpers.activation_scaling.controls import shuffled
from helpers.activation_scaling.dynamic import DynScalar, DynScalarBias
from helpers.activation_scaling.fitting import fit_many
from helpers.activation_scaling.interventions import ActivScalar, SteerVec, steered_logits
from helpers.activation_scaling.objective import Objective, base_logits
from helpers.activation_scaling.points import Points
from helpers.activation_scaling.recorded import facts_of, fit_or_read, key_of, read
from helpers.models.load import fingerprint
from helpers.prompts.prompts import Prompts
from helpers.settings import SETTINGS

RECORDS = sorted((Path(__file__).parents[2] / "book" / "results").glob("fits-*.safetensors"))
ONE = pytest.mark.parametrize("tiny", ["gpt2"], indirect=True)  # what is kept is of any model
KINDS = {kind.__name__: kind for kind in (ActivScalar, DynScalar, DynScalarBias)}
MARGIN = Objective(margin=2.0)
HOW = {"epochs": 3, "batch_size": None}


def job(model, i=0, kind=ActivScalar, *, word="w3", objective=MARGIN, **how):
    prompts = Prompts.of(model, [f"w1 w2 {word}"], [f"w{10 + i}"], ["w20"])
    points = Points.of(model, None if kind is DynScalar else prompts.n_pos)
    how = {"learning_rate": 1e-2, "seed": i, "initial_std": 0.1} | how
    return FitJob(kind(points), objective, prompts, **how)


def setting(monkeypatch, value: str) -> None:
    monkeypatch.setattr(recorded, "SETTINGS", replace(SETTINGS, fits=value))


@pytest.fixture
def counted(monkeypatch):
    """How many jobs each call of fit_many got."""
    calls = []

    def counting(model, jobs, **how):
        calls.append(len(jobs))
        return fit_many(model, jobs, **how)

    monkeypatch.setattr(recorded, "fit_many", counting)
    return calls


@pytest.fixture
def path(tiny, tmp_path, monkeypatch) -> Path:
    """A record of five fits of scalars and one of dynamic scalars."""
    path = tmp_path / "fits.safetensors"
    setting(monkeypatch, "record")
    jobs = [*(job(tiny, i) for i in range(3)), job(tiny, 3, word="w4"), job(tiny, 4)]
    fit_or_read(tiny, jobs, path, epochs=3)
    fit_or_read(tiny, [job(tiny, kind=DynScalar)], path, epochs=3)
    setting(monkeypatch, "recorded")
    return path


@ONE
def test_what_is_read_is_what_a_fit_gives(tiny, path, counted, capsys) -> None:
    jobs = [job(tiny, i) for i in range(3)]
    fits = fit_or_read(tiny, jobs, path, epochs=3, n_again=1)
    assert counted == [1] and "2 of 3 fits were read" in capsys.readouterr().out
    again = [job(tiny, i) for i in range(3)]
    for own, fitted, single in zip(jobs, fits, fit_many(tiny, again, epochs=3).results):
        assert fitted.intervention is own.intervention and fitted.objective == own.objective
        assert torch.allclose(fitted.intervention.vec(), single.intervention.vec(), atol=1e-5)
        assert [step["epoch"] for step in fitted.history] == [0, 1, 2]
        for mine, theirs in zip(fitted.history, single.history):
            assert mine == pytest.approx(theirs, abs=1e-4)


@ONE
def test_a_second_recording_adds_and_other_kinds_are_read_too(tiny, path, counted) -> None:
    assert len(read(path).tensors) == 6
    fit_or_read(tiny, [job(tiny, kind=DynScalar), job(tiny, 1)], path, epochs=3, n_again=1)
    assert counted == [1]


@ONE
def test_a_process_makes_one_again_for_each_record(tiny, path, counted, capsys) -> None:
    jobs = [job(tiny, i) for i in range(3)]
    for _ in range(2):
        fit_or_read(tiny, jobs, path, epochs=3)
    assert counted == [1] and "3 of 3 fits" in capsys.readouterr().out
    path.touch()  # another version, for all that one knows
    fit_or_read(tiny, jobs, path, epochs=3)
    assert counted == [1, 1]


CHANGES = {
    "prompt": {"word": "w5"},
    "answer": {"i": 5, "seed": 0},
    "seed": {"seed": 9},
    "learning rate": {"learning_rate": 2e-2},
    "start": {"initial_std": 0.2},
    "margin": {"objective": Objective(margin=2.5)},
    "penalty": {"objective": Objective(margin=2.0, lambda_m=0.1)},
    "kind": {"kind": SteerVec},
}


@ONE
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_differs_is_made_anew(tiny, path, counted, change) -> None:
    fit_or_read(
        tiny, [job(tiny, **CHANGES[change]), job(tiny, 1), job(tiny, 2)], path, n_again=2, epochs=3
    )
    assert counted == [3]  # the new one, and two samples of what is recorded


@ONE
@pytest.mark.parametrize("how", [{"epochs": 2}, {"epochs": 3, "batch_size": 1}])
def test_other_steps_are_made_anew(tiny, path, counted, how, capsys) -> None:
    fit_or_read(tiny, [job(tiny, i) for i in range(3)], path, **how)
    assert counted == [3] and "None of these 3 fits" in capsys.readouterr().out


@ONE
def test_other_weights_or_points_have_another_key(tiny) -> None:
    one = facts_of(job(tiny), "weights", **HOW)
    assert key_of(one) == key_of(facts_of(job(tiny), "weights", **HOW))
    assert key_of(one) != key_of(facts_of(job(tiny), "others", **HOW))
    upper = job(tiny)
    points = Points.of(tiny, upper.prompts.n_pos, layers=[1])
    assert key_of(one) != key_of(
        facts_of(replace(upper, intervention=ActivScalar(points)), "weights", **HOW)
    )


@ONE
def test_a_record_that_does_not_come_out_again_is_not_used(tiny, path, counted, capsys) -> None:
    tensors = load_file(path)
    metadata = {"jobs": json.dumps(read(path).jobs), "origin": json.dumps(read(path).origin)}
    for name in tensors:
        if not name.endswith("history"):
            tensors[name] = tensors[name].flip(0)
    save_file(tensors, path, metadata)
    fits = fit_or_read(tiny, [job(tiny, i) for i in range(3)], path, epochs=3, n_again=1)
    assert counted == [1, 2] and "made anew" in capsys.readouterr().out
    again = fit_many(tiny, [job(tiny, i) for i in range(3)], epochs=3).results
    for fitted, single in zip(fits, again):
        assert torch.allclose(fitted.intervention.vec(), single.intervention.vec(), atol=1e-5)


@ONE
def test_one_sampled_fit_that_comes_out_otherwise_is_enough(tiny, path, counted, capsys) -> None:
    """Two samples of four fits are the first and the third, and only the third is another one."""
    tensors = load_file(path)
    metadata = {"jobs": json.dumps(read(path).jobs), "origin": json.dumps(read(path).origin)}
    key = key_of(facts_of(job(tiny, 2), fingerprint(tiny), **HOW))
    tensors[f"{key}/history"][-1, -1] += 1.0  # the last Ψ
    save_file(tensors, path, metadata)
    fit_or_read(tiny, [job(tiny, i) for i in (0, 1, 2, 4)], path, epochs=3, n_again=2)
    assert counted == [2, 2] and "made anew" in capsys.readouterr().out


@ONE
def test_all_can_be_made_anew(tiny, path, counted, monkeypatch) -> None:
    setting(monkeypatch, "anew")
    fit_or_read(tiny, [job(tiny, i) for i in range(3)], path, epochs=3)
    assert counted == [3]


@ONE
def test_without_a_record_all_are_made(tiny, tmp_path, counted) -> None:
    fit_or_read(tiny, [job(tiny)], tmp_path / "none.safetensors", epochs=3)
    assert counted == [1]


@ONE
def test_what_is_no_record_is_refused(tiny, tmp_path) -> None:
    path = tmp_path / "fits.safetensors"
    for content in (b"", b"no record", b"\x08\0\0\0\0\0\0\0{}      "):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no record of fits"):
            fit_or_read(tiny, [job(tiny)], path)


def rebuilt(model, facts: dict) -> FitJob:
    """The job that a record describes."""
    points = facts["points"]
    made = Points.of(
        model,
        points["n_pos"],
        sites=points["sites"],
        layers=points["layers"],
        positions=points["positions"] or None,
    )
    prompts = Prompts(
        *(tuple(facts["texts"]), (), ()),
        *(torch.tensor(facts[name]) for name in ("tokens", "correct", "wrong")),
    )
    how = {name: facts[name] for name in ("learning_rate", "seed", "initial_std")}
    kind = KINDS[facts["intervention"]]
    return FitJob(kind(made), Objective(**facts["objective"]), prompts, **how)


def steps_of(facts: dict) -> int:
    """Tokens that a fit runs on: of a record, one of the shortest fits is made again."""
    return facts["epochs"] * sum(map(len, facts["tokens"]))


@pytest.mark.integration
@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_recorded_fits_begin_and_end_as_recorded(smollm2, path) -> None:
    """The first steps, and Ψ of the learned θ; a build of the book makes whole fits again."""
    record = read(path)
    key = min(record.jobs, key=lambda key: (steps_of(record.jobs[key]), key))
    facts, expected = record.jobs[key], record.tensors[key][recorded.HISTORY].tolist()
    one = rebuilt(smollm2, facts)
    how = {name: facts[name] for name in ("epochs", "batch_size")}
    assert key_of(facts_of(one, facts["weights"], **how)) == key
    (result,) = fit_many(smollm2, [one], **how | {"epochs": 4}).results
    for mine, theirs in zip(result.history, expected):
        assert list(mine.values()) == pytest.approx(theirs, abs=0.02)
    # The history has Ψ before each step: the last one has hardly changed it. Elsewhere the same
    # numbers do worse.
    learned, prompts = recorded._read_fit(one, record, key).intervention, one.prompts
    answers = base_logits(smollm2, prompts.tokens), prompts.correct, prompts.wrong
    psi = []
    for each in (learned, shuffled(learned, 0)):
        with torch.no_grad():
            steered = steered_logits(smollm2, prompts.tokens, each, [1.0, -1.0])
            psi.append(one.objective.terms(each.vec(), *steered, *answers)["psi"].item())
    assert psi[0] == pytest.approx(expected[-1][-1], abs=0.25) and psi[1] < psi[0] - 0.5


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_settings_of_recorded_fits_are_the_same_on_every_machine(path) -> None:
    """The last digits of a computed one would be the processor's, and no fit would be found."""
    for facts in read(path).jobs.values():
        for number in (facts["learning_rate"], *facts["objective"].values()):
            assert number == float(f"{number:.2g}")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_small(path) -> None:
    assert path.stat().st_size < 5e6

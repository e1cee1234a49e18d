"""The grid's command: what it refuses before any work, and what it records when settings fail."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.activation_scaling import grid
from helpers.results.records import read_record

pytestmark = pytest.mark.unit


@pytest.fixture
def command(tiny, tmp_path: Path, monkeypatch):
    """The command on a function that fails at margin 1 while the file ``broken`` is there."""
    broken = tmp_path / "broken"

    def run(model, *, margin, **setting):
        if margin == 1 and broken.exists():
            raise FloatingPointError("not finite")
        return {"E0": -margin}

    monkeypatch.setattr(grid, "SETTINGS", replace(grid.SETTINGS, cache=tmp_path))
    monkeypatch.setattr(grid, "load_model", lambda: tiny)
    monkeypatch.setattr(grid, "run", run)
    return lambda *options: grid.main(["--out", str(tmp_path / "grid.csv"), *options])


@pytest.mark.slow
def test_failed_settings_are_told_and_retried_and_replace_no_good_table(command, tmp_path, capsys):
    assert command("--values", "0") == 0
    good = (tmp_path / "grid.csv").read_bytes()
    (tmp_path / "broken").touch()
    assert command("--values", "0", "1") == 1
    said = capsys.readouterr()
    assert "16 settings failed with FloatingPointError: not finite" in said.err
    assert "32 settings, 16 of them failed; recorded in" in said.out
    assert (tmp_path / "grid.csv").read_bytes() == good
    table, _ = read_record(tmp_path / "grid-incomplete.csv")
    assert (table["error"] != "").sum() == 16
    # Once it is repaired, only those that failed are computed again.
    (tmp_path / "broken").unlink()
    assert command("--values", "0", "1") == 0
    again, _ = read_record(tmp_path / "grid.csv")
    assert (again["error"] == "").all() and len(again) == 32
    kept = table["error"] == ""
    assert again["seconds"][kept].tolist() == table["seconds"][kept].tolist()


def test_draws_of_prompts_that_nobody_has_seen_are_asked_for_by_the_first_seed(command, tmp_path):
    assert command("--values", "0", "--first-seed", "3", "--seeds", "2") == 0
    table, origin = read_record(tmp_path / "grid.csv")
    assert set(table["seed"]) == {3, 4} and origin["settings"]["seeds"] == [3, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "grid.json"], "--out: .* ends in .csv"),
        (["--out", "/proc/none/grid.csv"], "--out: no table can be written to"),
        (["--seeds", "0"], "--seeds: 0 must be at least 1"),
        (["--first-seed", "-1"], "--first-seed: -1 must be at least 0|expected one argument"),
        (["--epochs", "2.5"], "--epochs: invalid"),
        (["--values", "1", "-1"], "--values: -1 must be at least 0|expected at least one"),
        (["--values", "nan"], "--values: nan must be"),
        (["--rate-vector", "inf"], "--rate-vector: inf must be"),
        (["--margin", "1", "1.0"], "--margin: one is given twice"),
        (["--n-fit", "2", "2"], "--n-fit: one is given twice"),
        (["--n-fit", "9", "--n-train", "8"], "--n-fit: there are 8 training prompts"),
    ],
)
def test_bad_options_are_refused_before_a_model_is_loaded(
    command, monkeypatch, capsys, options, message
):
    monkeypatch.setattr(grid, "load_model", lambda: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stopped:
        command(*options)
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)

"""The table's command: what it refuses before any work, and which table it compares with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from helpers.ruler import table
from helpers.ruler.axes import MAIN

pytestmark = pytest.mark.unit
ROW = {"task": "IOI", "seed": 0, "method": "a", "budget": MAIN, "E0": -1.0, "F": 0.0, "kl": 0.1}


@pytest.fixture
def command(tiny, tmp_path: Path, monkeypatch):
    """The command on a table of one row, whose E0 a test may change."""
    found = dict(ROW)
    monkeypatch.setattr(table, "SETTINGS", replace(table.SETTINGS, cache=tmp_path))
    monkeypatch.setattr(table, "load_model", lambda: tiny)
    monkeypatch.setattr(table, "table_of", lambda model, **how: pd.DataFrame([found]))

    def run(*options: str, **changed: float) -> int:
        found.update(changed)
        return table.main(["--out", str(tmp_path / "ruler.csv"), *options])

    return run


def test_a_table_is_compared_with_the_one_that_it_replaces(command, tmp_path, capsys) -> None:
    same = "--recorded", str(tmp_path / "ruler.csv")
    assert command() == 0
    assert command(*same, E0=-1.5) == 0
    assert "1 recorded rows" in (said := capsys.readouterr().out) and "0.5" in said
    assert command(*same) == 0
    assert "0.5" not in capsys.readouterr().out


def test_a_table_of_another_model_is_not_compared(command, tmp_path, capsys, monkeypatch) -> None:
    assert command() == 0
    monkeypatch.setattr(table, "provenance", lambda model, **settings: {"weights": "others"})
    assert command("--recorded", str(tmp_path / "ruler.csv")) == 0
    assert "Not compared" in capsys.readouterr().out


def test_a_failure_is_told_in_a_line(command, capsys, monkeypatch) -> None:
    def fail(model, **how):
        raise RuntimeError("a on IOI with seed 0 failed: ValueError: no edit today.")

    monkeypatch.setattr(table, "table_of", fail)
    assert command() == 1
    assert capsys.readouterr().err.startswith("Error: a on IOI with seed 0 failed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "ruler.json"], "--out: .* ends in .csv"),
        (["--out", "/proc/none/ruler.csv"], "--out: no table can be written to"),
        (["--recorded", "none.csv"], "--recorded: .*none.json"),
        (["--seeds", "0", "-1"], "--seeds: -1 must be at least 0|expected|unrecognized"),
        (["--seeds", "1.5"], "--seeds: invalid int"),
        (["--seeds", "3", "3"], "--seeds: one is given twice"),
        (["--tasks", "IOI", "IOI"], "--tasks: one is given twice"),
        (["--tasks", "poems"], "--tasks: invalid choice"),
        (["--tasks"], "--tasks: expected at least one"),
    ],
)
def test_bad_options_are_refused_before_a_model_is_loaded(
    command, monkeypatch, capsys, options, message
) -> None:
    monkeypatch.setattr(table, "load_model", lambda: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stopped:
        command(*options)
    assert stopped.value.code == 2
    assert pd.Series(capsys.readouterr().err).str.contains(message, regex=True).all()


def test_differences_that_are_no_numbers_are_not_passed_over() -> None:
    rows = pd.DataFrame([ROW, ROW | {"seed": 1}])
    found = table.compared(rows, rows.assign(E0=[-1.0, -1.25]))
    assert found.loc["a", "E0"] == 0.25 and found.loc["a", "rows"] == 2
    with pytest.raises(ValueError, match="E0 is not finite"):
        table.compared(rows, rows.assign(E0=[-1.0, float("nan")]))

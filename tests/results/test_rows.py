"""Recorded rows: read where everything is the same, run again where anything is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.results import rows
from helpers.results.records import read_record, record
from helpers.results.rows import rows_or_read
from helpers.settings import SETTINGS

pytestmark = pytest.mark.unit
SHAPE = {"prompts": torch.arange(3), "rates": {"scalars": 1e-2}, "epochs": 3}
UNITS = ["a", "b", "c"]


def setting(monkeypatch, value: str) -> None:
    monkeypatch.setattr(rows, "SETTINGS", replace(SETTINGS, fits=value))


class Counted:
    """Gives two rows a unit, and remembers which were asked for."""

    def __init__(self, plus: float = 0.0, where: str = "test", more: int = 0) -> None:
        self.asked, self.plus, self.where, self.more = [], plus, where, more

    def __call__(self, unit: str) -> pd.DataFrame:
        self.asked.append(unit)
        values = np.array([ord(unit) / 3, np.nan]) + self.plus
        values = [*values, *[0.0] * self.more]
        columns = {"E0": values, "prompts": [self.where] * len(values)}
        return pd.DataFrame(columns | {"swapped": [True] * len(values)})


@pytest.fixture
def path(tiny, tmp_path, monkeypatch) -> Path:
    path = tmp_path / "rows.csv"
    setting(monkeypatch, "record")
    rows_or_read(tiny, path, UNITS, Counted(), depends_on=SHAPE)
    setting(monkeypatch, "recorded")
    return path


ONE = pytest.mark.parametrize("tiny", ["gpt2"], indirect=True)


def every(run: Counted, units=UNITS) -> pd.DataFrame:
    return pd.concat([run(unit).assign(unit=unit) for unit in units], ignore_index=True)


@ONE
def test_what_is_read_is_what_a_run_gives_and_the_first_is_run_again(tiny, path, capsys) -> None:
    run = Counted()
    found = rows_or_read(tiny, path, UNITS, run, depends_on=SHAPE)
    assert run.asked == ["a"] and "2 of 3 parts were read" in capsys.readouterr().out
    pd.testing.assert_frame_equal(found, every(Counted()))
    origin = read_record(path)[1]
    assert origin["settings"]["units"] == UNITS and origin["versions"]["torch"]


@ONE
def test_some_of_the_units_are_read_in_the_order_asked(tiny, path) -> None:
    run = Counted()
    found = rows_or_read(tiny, path, ["c", "a"], run, depends_on=SHAPE)
    assert run.asked == ["c"]
    pd.testing.assert_frame_equal(found, every(Counted(), ["c", "a"]))


CHANGES = {
    "prompts": {"prompts": torch.arange(4)},
    "a rate": {"rates": {"scalars": 2e-2}},
    "epochs": {"epochs": 4},
    "one setting more": {"margin": 1},
}


@ONE
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_differs_is_run_anew(tiny, path, change, capsys) -> None:
    run = Counted()
    rows_or_read(tiny, path, UNITS, run, depends_on=SHAPE | CHANGES[change])
    assert run.asked == UNITS and "has other rows" in capsys.readouterr().out


@ONE
def test_other_weights_and_units_that_are_not_recorded_are_run_anew(tiny, path) -> None:
    run = Counted()
    rows_or_read(tiny, path, ["a", "d"], run, depends_on=SHAPE)
    assert run.asked == ["a", "d"]
    run = Counted()
    table, origin = read_record(path)
    key = rows._digest({"weights": "others", **SHAPE})
    record(table, path, origin | {"settings": {"units": UNITS, "depends_on": key}})
    rows_or_read(tiny, path, UNITS, run, depends_on=SHAPE)
    assert run.asked == UNITS


OTHERS = {
    "a number": Counted(plus=0.2),
    "a word": Counted(where="train"),
    "a row": Counted(more=1),
}


@ONE
@pytest.mark.parametrize("other", OTHERS)
def test_a_record_that_does_not_come_out_again_is_not_used(tiny, path, other, capsys) -> None:
    run = OTHERS[other]
    found = rows_or_read(tiny, path, UNITS, run, depends_on=SHAPE)
    assert run.asked == UNITS and "does not come out again" in capsys.readouterr().out
    pd.testing.assert_frame_equal(found, every(run))


@ONE
def test_a_number_may_differ_by_what_is_allowed(tiny, path) -> None:
    near = Counted(plus=0.05)
    found = rows_or_read(tiny, path, UNITS, near, depends_on=SHAPE)
    assert near.asked == ["a"] and found["E0"][0] == pytest.approx(ord("a") / 3 + 0.05)
    assert found["E0"][2] == pytest.approx(ord("b") / 3)
    near = Counted(plus=0.05)
    rows_or_read(tiny, path, UNITS, near, depends_on=SHAPE, apart=0.01)
    assert near.asked == UNITS
    near = Counted(plus=0.05)
    rows_or_read(tiny, path, UNITS, near, depends_on=SHAPE, apart=0.01, relative=0.01)
    assert near.asked == ["a"]


@ONE
def test_all_can_be_run_anew_and_without_a_record_all_are(tiny, path, tmp_path, monkeypatch):
    run = Counted()
    rows_or_read(tiny, tmp_path / "none.csv", UNITS, run, depends_on=SHAPE)
    setting(monkeypatch, "anew")
    rows_or_read(tiny, path, UNITS, run, depends_on=SHAPE)
    assert run.asked == UNITS * 2


@dataclass(frozen=True)
class Sizes:
    n: int
    tokens: torch.Tensor


def test_settings_count_by_content() -> None:
    def digest(n=1, tokens=(1, 2), rate=0.5):
        return rows._digest({"sizes": Sizes(n, torch.tensor(tokens)), "rate": np.float64(rate)})

    assert digest() == digest()
    assert len({digest(), digest(n=2), digest(tokens=(1, 3)), digest(rate=0.6)}) == 4


@ONE
def test_what_cannot_be_told_apart_is_refused(tiny, path) -> None:
    with pytest.raises(TypeError, match="depends_on holds a object"):
        rows_or_read(tiny, path, UNITS, Counted(), depends_on={"what": object()})
    with pytest.raises(ValueError, match="no units"):
        rows_or_read(tiny, path, [], Counted(), depends_on=SHAPE)

"""The table: resumed from what is kept, a method of one's own in it, compared with another."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from helpers.ruler.axes import BUDGETS, MAIN
from helpers.ruler.methods import METHODS, Method, constant, register
from helpers.ruler.table import compared, measure, table_of

SIZES = {"n_train": 2, "n_test": 2, "n_transfer": 2, "epochs": 1, "n_texts": 4}


class Nothing(Method):
    name, source, needs, layers = "hardly anything", "a test", "nothing", "end"

    def make(self, seen, layer):
        v = seen.run.ends.new_zeros(seen.model.cfg.d_model)
        v[0] = 1e-3
        return constant(seen, layer, v)


@pytest.mark.integration
def test_a_table_is_resumed_and_takes_up_a_new_method(smollm2, tmp_path: Path) -> None:
    how = {"folder": tmp_path, "tasks": ["pronoun"], "seeds": [0], **SIZES}
    first = table_of(smollm2, methods=["random direction"], **how)
    assert sorted(first["budget"]) == sorted(BUDGETS)
    main = first[first["budget"] == MAIN].iloc[0]
    assert main["kl_choose"] == pytest.approx(MAIN, rel=0.1)
    try:
        register(Nothing)
        both = table_of(smollm2, methods=["random direction", Nothing.name], **how)
    finally:
        METHODS.pop(Nothing.name, None)
    kept = both[both["method"] == "random direction"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first)  # seconds too: nothing was computed again
    assert len(both) == 2 * len(first)
    assert not compared(first, both)["E0"].any()
    with pytest.raises(ValueError, match="unknown method"):
        table_of(smollm2, methods=[Nothing.name], **how)


@pytest.mark.integration
def test_a_failure_names_method_task_and_seed(smollm2, tmp_path: Path) -> None:
    class Broken(Nothing):
        name = "broken"

        def make(self, seen, layer):
            raise ValueError("no edit today")

    try:
        register(Broken)
        with pytest.raises(RuntimeError, match="broken on IOI with seed 5.*no edit today"):
            table_of(
                smollm2, folder=tmp_path, tasks=["IOI"], seeds=[5], methods=["broken"], **SIZES
            )
    finally:
        METHODS.pop("broken", None)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["projection", "RelP map", "instruction in front"])
def test_rows_have_all_axes(smollm2, name: str) -> None:
    rows = measure(smollm2, task="IOI", seed=0, method=name, kind=METHODS[name], **SIZES)["rows"]
    assert [row["budget"] for row in rows] == ([0.0] if "front" in name else list(BUDGETS))
    for row in rows:
        assert row["E0"] <= 0 and row["F"] <= 0 and row["kl"] >= 0
        assert row["E0"] == pytest.approx(sum(row["gaps"]) / len(row["gaps"]), abs=1e-3)
        assert 0 <= row["wrong_way"] <= 1 and row["size"] >= row["places"] >= 1


@pytest.mark.unit
def test_two_classes_cannot_have_one_name() -> None:
    class Other(Nothing):
        pass

    register(Nothing)
    try:
        with pytest.raises(ValueError, match="already"):
            register(Other)
        with pytest.raises(TypeError, match="subclass of Method"):
            register(int)
    finally:
        METHODS.pop(Nothing.name)


@pytest.mark.unit
def test_differences_between_tables_are_found() -> None:
    row = {"task": "IOI", "seed": 0, "method": "a", "budget": MAIN, "E0": -1.0, "F": 0.0, "kl": 0.1}
    table = pd.DataFrame([row])
    assert compared(table, table.assign(E0=-1.5)).loc["a", "E0"] == 0.5
    with pytest.raises(ValueError, match="no row in common"):
        compared(table, table.assign(seed=1))

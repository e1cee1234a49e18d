"""Recorded tables: complete, checked when read, and readable after a kill at any moment."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from helpers.models.load import fingerprint
from helpers.results.records import provenance, read_record, record

pytestmark = pytest.mark.unit
OLD = pd.DataFrame({"text": ["", "a, b"], "value": [1 / 3, float("nan")], "seconds": [1.0, 2.0]})
NEW = OLD.assign(value=2.0)


class Killed(BaseException):
    """Stands for a signal that nothing can catch."""


def test_a_record_comes_back_with_its_provenance(tiny, tmp_path: Path) -> None:
    record(OLD, tmp_path / "new/folders/grid.csv", provenance(tiny, epochs=3))
    table, origin = read_record(tmp_path / "new/folders/grid.csv")
    pd.testing.assert_frame_equal(table, OLD)
    assert origin["weights"] == fingerprint(tiny) and origin["settings"] == {"epochs": 3}
    assert (origin["rows"], origin["wall_seconds"]) == (2, 3.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("grid.json", "ends in .csv"),
        ("grid", "ends in .csv"),
        ("folder.csv", "ends in .csv"),
        ("file/grid.csv", "no table can be written to .*file"),
        ("file/folder/grid.csv", "no table can be written to .*folder"),
    ],
)
def test_a_place_where_no_table_can_be_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises((ValueError, OSError), match=message):
        record(OLD, tmp_path / name, {})


def test_a_table_that_was_changed_is_refused_and_other_line_ends_are_not(tmp_path: Path) -> None:
    path = tmp_path / "grid.csv"
    record(OLD, path, {})
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read_record(path)[0], OLD)
    path.write_bytes(path.read_bytes().replace(b"a, b", b"a, c"))
    with pytest.raises(ValueError, match="was changed after it was recorded"):
        read_record(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="grid.csv is missing"):
        read_record(path)


@pytest.mark.parametrize("step", range(1, 5))
def test_a_kill_at_any_step_leaves_the_old_pair_or_the_new_one(
    monkeypatch, tmp_path: Path, step: int
) -> None:
    path, steps = tmp_path / "grid.csv", []
    record(OLD, path, {"run": "old"})

    def killing(method):
        def call(self, *given, **options):
            steps.append(method)
            if len(steps) == step:
                raise Killed
            return method(self, *given, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("write_bytes", "write_text", "replace"):
            patch.setattr(Path, name, killing(getattr(Path, name)))
        with pytest.raises(Killed):
            record(NEW, path, {"run": "new"})
    table, origin = read_record(path)
    pd.testing.assert_frame_equal(table, {"old": OLD, "new": NEW}[origin["run"]])
    record(NEW, path, {"run": "new"})
    assert read_record(path)[1]["run"] == "new"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["grid.csv", "grid.json"]

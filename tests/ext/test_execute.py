"""Notebooks run in kernels of their own: failures are told, and nothing outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from book._ext import execute, kernels
from book._ext.kernels import LIBRARIES, ROOT
from book._ext.timings import seconds_of, write_timings
from helpers.models.load import fingerprint


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    """Kernels start without a model, which would have to be downloaded, and without libraries."""
    monkeypatch.setenv("BOOK_MODEL", "gpt2")
    monkeypatch.setenv("BOOK_DEVICE", "cpu")
    monkeypatch.setattr(kernels, "LIBRARIES", LIBRARIES[:1])


def written(folder: Path, name: str, *cells: str, kernel: str = "python3") -> Path:
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def test_one_that_fails_stops_no_other_and_is_told_with_its_cell(tmp_path, capsys) -> None:
    bad = written(tmp_path, "bad", "1", "raise KeyError('lost')")
    good = written(tmp_path, "good", "print(6 * 7)", kernel="some-other-kernel")
    kept = []
    outcomes = execute.execute_all([bad, good], 2, kept.append)
    assert {outcome.path for outcome in kept} == {bad, good} == {one.path for one in outcomes}
    failed, done = sorted(outcomes, key=lambda outcome: outcome.path.stem)
    assert failed.notebook is None
    assert "cell 2 of 2" in failed.error and "KeyError: 'lost'" in failed.error
    assert not done.error and done.notebook.cells[0].outputs[0].text == "42\n"
    said = capsys.readouterr().out
    assert "bad: FAILED" in said and "good: done" in said

    table = tmp_path / "timings.csv"
    write_timings({"good": [seconds_of(done.notebook.cells[0])], "other": [None]}, table)
    head, row = table.read_text().splitlines()
    assert head == "chapter,cell,seconds" and row.startswith("good,1,")


@pytest.mark.parametrize("fork", [True, False])
def test_a_forked_kernel_is_like_jupyter_s_own(tmp_path: Path, monkeypatch, fork: bool) -> None:
    monkeypatch.setattr(kernels, "LIBRARIES", LIBRARIES)
    monkeypatch.setenv("BOOK_SEED", "41")
    monkeypatch.setenv("BOOK_PROFILE", "paper")
    profile = "from helpers.settings import SETTINGS; print(SETTINGS.profile)"
    said = "import os, sys; print(os.getcwd(), sys.argv[1], sys.path[0] == str(os.getcwd()), "
    said += "'torch' in sys.modules)"
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
    other = "import subprocess; print(subprocess.run(['false']).returncode)"
    seed = "from helpers.settings import SETTINGS; print(SETTINGS.seed)"
    path = written(tmp_path, "like", profile, said, draw, other, seed)
    (outcome,) = execute.execute_all([path], 1, print, fork=fork)
    assert not outcome.error
    printed = []
    for cell in outcome.notebook.cells:  # what a cell prints may come in parts
        printed.append("".join(output.get("text", "") for output in cell.outputs))
    assert printed[:2] == ["paper\n", f"{tmp_path} -f False {fork}\n"]
    assert "image/png" in outcome.notebook.cells[2].outputs[-1].data
    assert printed[3:] == ["1\n", "41\n"]


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="other systems' kernels are no forks")
@pytest.mark.parametrize("n_jobs", [1, 2])  # with one job, PyTorch uses all cores
def test_a_fork_has_a_model_of_its_own_as_if_loaded(smollm2, tmp_path, monkeypatch, n_jobs) -> None:
    monkeypatch.setenv("BOOK_MODEL", "smollm2")
    load = "import time; start = time.perf_counter()\n"
    load += "from helpers.models.load import fingerprint, load_model\n"
    first = "model = load_model(); took = time.perf_counter() - start\n"
    first += "print(fingerprint(model)); model.original_model.lm_head.weight.data[0] += 1"
    second = "again = load_model(); print(fingerprint(again), again is not model)\n"
    second += "print(again(again.to_tokens('The capital'))[0, -1].argmax().item())"
    # The second of two finds the model as it was, though the first has changed its own.
    names = ("a", "b")[:n_jobs]
    paths = [written(tmp_path, name, load, first, second, "print(took)") for name in names]
    outcomes = execute.execute_all(paths, n_jobs, print)
    logits = smollm2(smollm2.to_tokens("The capital"))[0, -1]
    expected = [fingerprint(smollm2), fingerprint(smollm2), "True", str(logits.argmax().item())]
    for outcome in outcomes:
        assert not outcome.error
        *cells, took = outcome.notebook.cells[1:]
        text = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
        assert text.split() == expected
        assert float(took.outputs[0].text) < 1  # it was loaded before


def test_a_kernel_that_dies_is_told_and_the_next_one_starts(tmp_path: Path) -> None:
    dies = written(tmp_path, "dies", "1", "import os; os._exit(3)")
    after = written(tmp_path, "after", "1")
    first, second = execute.execute_all([dies, after], 1, print)
    assert first.notebook is None and "cell 2 of 2" in first.error and "died" in first.error
    assert not second.error


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no signal for it")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_the_head_is_ended_no_kernel_is_left(tmp_path: Path, how: signal.Signals) -> None:
    """Each notebook says its kernel's process, then runs on for a minute."""
    cell = "import os, time; open(f'pid-{os.getpid()}', 'w').close(); time.sleep(60)"
    paths = [written(tmp_path, name, cell) for name in ("one", "two")]
    # A shell without job control has what it starts in the background ignore Ctrl-C.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "import sys; from pathlib import Path; from book._ext import kernels; "
    code += "kernels.LIBRARIES = kernels.LIBRARIES[:1]; "
    code += "from book._ext.execute import execute_all; "
    code += "execute_all([Path(path) for path in sys.argv[1:]], 2, print)"
    head = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, paths)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while len(pids := [int(file.name[4:]) for file in tmp_path.glob("pid-*")]) < 2:
        assert time.monotonic() < end and head.poll() is None
        time.sleep(0.1)
    head.send_signal(how)
    head.wait(timeout=30)
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.2)


def test_the_time_left_comes_from_earlier_times_or_is_not_told(monkeypatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(execute.time, "perf_counter", lambda: now[0])
    board = execute.Board(["a", "b", "c"], 2, {"a": 60.0, "b": 20.0, "c": 10.0})
    board.live = True
    assert board.time_left() == 60
    board.update("a", "cell 1 of 9")
    board.update("b", "cell 1 of 9")
    now[0] = 15.0
    assert board.time_left() == 45
    board.update("b", "done", 15.0)
    assert "1 of 3, 15 s so far, about 45 s left" in capsys.readouterr().out
    now[0] = 100.0
    assert board.time_left() == 10, "a is late and c has not begun"
    unknown = execute.Board(["a", "new"], 2, {"a": 60.0})
    assert unknown.time_left() is None
    unknown.update("new", "done", 1.0)
    assert unknown.time_left() == 60

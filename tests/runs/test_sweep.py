"""Sweeps: kill -9, two processes, failures, damage, a full disk; and recorded tables."""

import errno
import multiprocessing
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from joblib import parallel_config

from helpers.activation_scaling import grid
from helpers.results.records import provenance, read_record, record
from helpers.runs import sweep as sweeps
from helpers.runs.sweep import Store, code_of, sweep, table

pytestmark = pytest.mark.unit
SETTINGS = [{"x": x, "kind": kind} for kind in ("a", "b") for x in range(6)]
# Forked, so that a process needs no seconds to import; joblib's own processes are tested apart.
FORK = multiprocessing.get_context("fork")


def square(x, kind):
    return {"square": x * x}


def start(folder: Path, log: Path, pause: float) -> multiprocessing.Process:
    """A process that sweeps, and appends a line to the log when it starts a setting and when it has its result."""

    def note(what: str, x: int, kind: str) -> None:
        with log.open("a") as file:
            file.write(f"{what} {x} {kind}\n")

    def slow_square(x, kind):
        note("start", x, kind)
        time.sleep(pause)
        note("end", x, kind)
        return {"square": x * x}

    process = FORK.Process(
        target=lambda: sweep(SETTINGS, slow_square, Store(folder, {"model": "none"}))
    )
    process.start()
    return process


def lines(log: Path, what: str) -> list[str]:
    return (
        [line for line in log.read_text().splitlines() if line.startswith(what)]
        if log.exists()
        else []
    )


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", {"model": "none"})


def test_a_sweep_gives_one_row_a_setting_in_their_order(store):
    result = sweep(SETTINGS, square, store)
    assert result["square"].tolist() == [setting["x"] ** 2 for setting in SETTINGS]
    assert result["kind"].tolist() == [setting["kind"] for setting in SETTINGS]
    assert (result["error"] == "").all()


def test_finished_settings_are_not_computed_again(store):
    sweep(SETTINGS, square, store)
    calls = []
    sweep(
        [*SETTINGS, {"x": 9, "kind": "a"}], lambda x, kind: calls.append(x) or {"square": x}, store
    )
    assert calls == [9]


def test_results_of_another_context_are_not_taken(store):
    sweep(SETTINGS, square, store)
    other = Store(store.folder, {"model": "another"})
    result = sweep(SETTINGS, lambda x, kind: {"square": -1}, other)
    assert (result["square"] == -1).all()
    assert (table(SETTINGS, store)["square"] >= 0).all()


def test_a_sweep_killed_at_random_moments_loses_at_most_the_setting_under_way(tmp_path):
    folder, log = tmp_path / "store", tmp_path / "log"
    random_ = random.Random(0)
    kills = 0
    for _ in range(8):
        process = start(folder, log, 0.05)
        process.join(random_.uniform(0.02, 0.15))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 4, "the sweep was over before it was killed: nothing was tested"
    process = start(folder, log, 0.0)
    process.join(60)
    assert process.exitcode == 0
    assert len(lines(log, "start")) <= len(SETTINGS) + kills
    assert len(set(lines(log, "end"))) == len(SETTINGS)
    result = table(SETTINGS, Store(folder, {"model": "none"}))
    assert result["square"].tolist() == [setting["x"] ** 2 for setting in SETTINGS]


def test_two_processes_on_one_store_share_the_work_and_do_nothing_twice(tmp_path):
    folder, log = tmp_path / "store", tmp_path / "log"
    both = [start(folder, log, 0.1) for _ in range(2)]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    started = lines(log, "start")
    assert len(started) == len(set(started)) == len(SETTINGS)
    assert len(table(SETTINGS, Store(folder, {"model": "none"}))) == len(SETTINGS)


def test_a_setting_whose_process_is_killed_is_taken_over_by_the_one_that_waits_for_it(tmp_path):
    folder, log = tmp_path / "store", tmp_path / "log"
    dies = start(folder, log, 30)
    while not lines(log, "start"):
        time.sleep(0.01)
    waits = start(folder, log, 0.0)
    while len(lines(log, "end")) < len(SETTINGS) - 1:
        time.sleep(0.01)
    assert waits.is_alive()
    dies.kill()
    waits.join(60)
    assert waits.exitcode == 0
    assert len(table(SETTINGS, Store(folder, {"model": "none"}))) == len(SETTINGS)


def test_a_setting_that_fails_is_recorded_and_the_rest_go_on(store):
    def fails(x, kind):
        if x == 2:
            raise FloatingPointError("not finite")
        return {"square": x * x}

    result = sweep(SETTINGS, fails, store)
    assert len(result) == len(SETTINGS)
    bad = result[result["x"] == 2]
    assert bad["square"].isna().all() and bad["error"].eq("FloatingPointError: not finite").all()
    assert (result[result["x"] != 2]["error"] == "").all()
    # A failure is kept, and computed again only when asked for.
    assert sweep(SETTINGS, square, store)["square"].isna().sum() == 2
    assert sweep(SETTINGS, square, store, retry_failed=True)["square"].isna().sum() == 0


def test_results_that_cannot_be_kept_are_failures(store):
    assert "TypeError" in sweep(SETTINGS[:1], lambda x, kind: {"y": object()}, store)["error"][0]
    assert "names of settings" in sweep(SETTINGS[1:2], lambda x, kind: {"x": 1}, store)["error"][0]


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied", "not an object"])
def test_a_damaged_entry_is_found_said_and_computed_again(store, damage):
    sweep(SETTINGS, square, store)
    path = store.path(SETTINGS[5])
    text = path.read_text()
    damaged = {
        "truncated": text[:-20],
        "altered": text.replace('"square": 25', '"square": 26'),
        "emptied": "",
        "not an object": "[1]",
    }
    assert damaged[damage] != text
    path.write_text(damaged[damage])
    with pytest.warns(UserWarning, match="is damaged"):
        result = sweep(SETTINGS, square, store)
    assert result["square"].tolist() == [setting["x"] ** 2 for setting in SETTINGS]


def test_a_full_disk_stops_the_sweep_before_the_work_and_loses_nothing(store, monkeypatch):
    done = []

    def full(descriptor, offset, length):
        if len(done) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    def counting(x, kind):
        done.append(x)
        return {"square": x * x}

    monkeypatch.setattr(sweeps.os, "posix_fallocate", full)
    with pytest.raises(
        OSError, match=r"cannot write to .*No space left.*The finished settings there are safe"
    ) as caught:
        sweep(SETTINGS, counting, store)
    assert caught.value.errno == errno.ENOSPC
    assert len(done) == 3, "a setting was computed that could not be kept"
    assert table(SETTINGS, store)["square"].tolist() == [0, 1, 4]
    assert not list(store.folder.glob("*.part"))
    monkeypatch.undo()
    assert len(sweep(SETTINGS, square, store)) == len(SETTINGS)


def test_an_error_while_an_entry_is_put_in_place_leaves_no_half_entry(store, monkeypatch):
    def fails(source, target):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sweeps.os, "replace", fails)
    with pytest.raises(OSError, match="Input/output error"):
        sweep(SETTINGS, square, store)
    assert not list(store.folder.glob("*.json")) and not list(store.folder.glob("*.part"))


def test_a_function_that_raises_an_os_error_is_a_failed_setting_and_not_a_full_disk(store):
    def fails(x, kind):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert sweep(SETTINGS[:2], fails, store)["error"].str.contains("No space left").all()


def test_a_setting_given_twice_is_refused(store):
    with pytest.raises(ValueError, match="given twice"):
        sweep([*SETTINGS, SETTINGS[0]], square, store)


def test_several_jobs_give_the_same_table(store):
    with parallel_config(
        backend="threading"
    ):  # joblib's own choice, whole processes, would take half a minute to import
        result = sweep(SETTINGS, square, store, n_jobs=2)
    assert result["square"].tolist() == [setting["x"] ** 2 for setting in SETTINGS]


def test_code_of_tells_two_functions_apart():
    def other(x, kind):
        return {"square": x * x * x}

    assert code_of(square) == code_of(square) != code_of(other)


def test_code_of_a_helper_covers_what_it_imports_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "helpers").mkdir()
    package = Path(sweeps.__file__).parent
    for path in package.glob("*.py"):
        (tmp_path / "helpers" / path.name).write_text(path.read_text())
    monkeypatch.setattr(sweeps, "__file__", str(tmp_path / "helpers" / "sweeps.py"))
    monkeypatch.setattr(
        sweeps.inspect, "getfile", lambda function: str(tmp_path / "helpers" / "grid.py")
    )
    before = code_of(grid.run)
    with (tmp_path / "helpers" / "plots.py").open("a") as file:
        file.write("# a change that grid.run does not depend on\n")
    assert code_of(grid.run) == before
    with (tmp_path / "helpers" / "models.py").open("a") as file:  # imported by what grid imports
        file.write("# a change that it does depend on\n")
    assert code_of(grid.run) != before


def test_a_recorded_table_reads_back_with_its_provenance_and_refuses_changes(tmp_path, tiny):
    rows = pd.DataFrame({"x": [0.1, 1 / 3], "error": ["", "bad"], "seconds": [1.0, 2.5]})
    path = tmp_path / "results" / "grid.csv"
    record(rows, path, provenance(tiny, epochs=3))
    back, origin = read_record(path)
    pd.testing.assert_frame_equal(back, rows, check_dtype=False)
    assert (
        origin["wall_seconds"] == 3.5
        and origin["rows"] == 2
        and origin["settings"] == {"epochs": 3}
    )
    assert {"model", "weights", "device", "versions", "date"} <= set(origin)
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(ValueError, match="changed after it was recorded"):
        read_record(path)
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.csv")

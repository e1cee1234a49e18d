"""Sweeps: kill -9, two processes, failures, damage, a full disk, and other code."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

from helpers.runs.sweep import PROBE, Store, sweep

pytestmark = pytest.mark.unit
SETTINGS = [{"x": x, "kind": kind} for kind in ("a", "b") for x in range(6)]
SQUARES = [setting["x"] ** 2 for setting in SETTINGS]
FORK = multiprocessing.get_context("fork")  # needs no seconds to import


def square(x, kind):
    return {"square": x * x}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", {"model": "none"})


def n_lines(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def kept(store: Store) -> int:
    return len(list(store.folder.glob("*.json")))


def test_a_sweep_gives_one_row_a_setting_in_their_order(store):
    table = sweep(SETTINGS, square, store)
    assert list(table) == ["x", "kind", "square", "seconds", "error"]
    assert table["square"].tolist() == SQUARES and (table["error"] == "").all()
    assert table["kind"].tolist() == [setting["kind"] for setting in SETTINGS]


def test_finished_settings_are_not_computed_again(store):
    first = sweep(SETTINGS, square, store)
    again = sweep([{"x": 9, "kind": "a"}, *SETTINGS], square, store)
    assert again["seconds"].tolist()[1:] == first["seconds"].tolist()


FACTOR = 1


def scaled(x, kind):
    return {"scaled": FACTOR * x}


def test_other_code_or_another_context_gives_other_results(store, monkeypatch):
    assert sweep(SETTINGS, scaled, store)["scaled"].max() == 5
    monkeypatch.setattr(f"{__name__}.FACTOR", 2)
    assert sweep(SETTINGS, scaled, store)["scaled"].max() == 10
    other = Store(store.folder, {"model": "another"})
    sweep(SETTINGS, scaled, other)
    assert kept(store) == 3 * len(SETTINGS)
    monkeypatch.undo()
    assert sweep(SETTINGS, scaled, store)["scaled"].max() == 5 and kept(store) == 3 * len(SETTINGS)


# Processes that die


def start(store: Store, log: Path) -> multiprocessing.Process:
    """A process that sweeps and logs the settings that it starts."""

    def slow_square(x, kind):
        with log.open("a") as file:
            file.write(f"{x} {kind}\n")
        time.sleep(0.03)
        return {"square": x * x}

    def work():
        warnings.simplefilter("error")  # nothing is found damaged
        assert sweep(SETTINGS, slow_square, store)["square"].tolist() == SQUARES

    process = FORK.Process(target=work)
    process.start()
    return process


@pytest.mark.slow
def test_a_sweep_killed_at_random_moments_loses_at_most_the_setting_under_way(store, tmp_path):
    log, moments, kills = tmp_path / "log", random.Random(0), 0
    for _ in range(8):
        n_kept, wanted = kept(store), n_lines(log) + moments.choice([0, 1, 2])
        process = start(store, log)
        while process.is_alive() and n_lines(log) < wanted:
            time.sleep(0.001)
        process.join(moments.uniform(0, 0.04))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert kept(store) >= n_kept
    assert kills >= 4 and n_lines(log) >= 4, "nothing was tested"
    process = start(store, log)
    process.join(60)
    assert process.exitcode == 0 and kept(store) == len(SETTINGS)
    assert n_lines(log) <= len(SETTINGS) + kills


def test_two_processes_on_one_store_do_each_other_no_harm(store, tmp_path):
    both = [start(store, tmp_path / "log") for _ in range(2)]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert kept(store) == len(SETTINGS) and len(list(store.folder.iterdir())) == kept(store)


# Failures


def test_a_setting_that_fails_is_recorded_and_the_rest_go_on(store):
    def fails(x, kind):
        if x == 2 and not (store.folder / "repaired").exists():
            raise FloatingPointError("not finite")
        (store.folder / f"{x} {kind}").touch(exist_ok=False)  # done once only
        return {"square": x * x}

    table = sweep(SETTINGS, fails, store)
    bad = table["x"] == 2
    assert table.loc[bad, "square"].isna().all() and (table.loc[~bad, "error"] == "").all()
    assert (table.loc[bad, "error"] == "FloatingPointError: not finite").all()
    # A failure is kept, and computed again only when asked for.
    (store.folder / "repaired").touch()
    assert sweep(SETTINGS, fails, store)["square"].isna().sum() == 2
    assert sweep(SETTINGS, fails, store, retry_failed=True)["square"].tolist() == SQUARES


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"y": {1, 2}}, "TypeError: Object of type set is not JSON serializable"),
        ({"x": 1}, r"ValueError: the function returns \['x'\]"),
        ({"error": ""}, r"ValueError: the function returns \['error'\]"),
        ({"seconds": 0, "kind": 1}, r"ValueError: the function returns \['kind', 'seconds'\]"),
        ([1], "TypeError"),
    ],
)
def test_a_row_that_cannot_be_kept_is_a_failure(store, row, error):
    def returns(x, kind):
        return row

    table = sweep(SETTINGS[:1], returns, store)
    assert table["error"].str.match(error).all() and table["kind"].tolist() == ["a"]


def test_settings_that_make_no_table_are_refused(store):
    with pytest.raises(ValueError, match="given twice"):
        sweep([*SETTINGS, SETTINGS[0]], square, store)
    with pytest.raises(ValueError, match="named error or seconds"):
        sweep([{"x": 1, "error": 2}], square, store)
    with pytest.raises(TypeError, match="not JSON"):
        sweep([{"x": 1, "kind": {2}}], square, store)


def damaged(path: Path, other: Path, damage: str) -> str:
    text = path.read_text()
    return {
        "truncated": text[:-20],
        "altered": text.replace('"square": 25', '"square": 26'),
        "emptied": "",
        "not an object": "[1]",
        "of another setting": other.read_text(),
    }[damage]


@pytest.mark.parametrize(
    "damage", ["truncated", "altered", "emptied", "not an object", "of another setting"]
)
def test_a_damaged_entry_is_said_and_computed_again(store, damage):
    sweep(SETTINGS, square, store)
    paths = {}
    for path in store.folder.glob("*.json"):
        paths[json.loads(path.read_text())["row"]["square"]] = path
    text = damaged(paths[25], paths[16], damage)
    assert text != paths[25].read_text()
    paths[25].write_text(text)
    with pytest.warns(UserWarning, match=f"{paths[25].name} is damaged .* computed again"):
        assert sweep(SETTINGS, square, store)["square"].tolist() == SQUARES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(SETTINGS, square, store)


# Stores that others share


def test_entries_have_modes_by_the_umask(store):
    before = os.umask(0o022)
    try:
        sweep(SETTINGS[:2], square, store)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in store.folder.iterdir()} == {0o644}


def test_finished_results_are_read_without_writing_anything(store, monkeypatch):
    first = sweep(SETTINGS, square, store)
    monkeypatch.setattr(Store, "_put", lambda *given: pytest.fail("something was written"))
    assert sweep(SETTINGS, square, store).equals(first)


def test_an_entry_that_cannot_be_read_is_not_taken_for_damaged(store, monkeypatch):
    read = Path.read_bytes

    def refuse(path):
        if path.parent == store.folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    sweep(SETTINGS, square, store)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError, match="Permission denied: .*store"):
        sweep(SETTINGS, square, store)
    assert kept(store) == len(SETTINGS)


# A disk that cannot be written


def limited(store: Store, log: Path, at: int) -> multiprocessing.Process:
    """A process whose disk is full once a setting has been started ``at`` times."""

    def fills(x, kind):
        with log.open("a") as file:
            file.write("started\n")
        if n_lines(log) == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        return {"square": x * x}

    def work():
        # The limit is for every file: the progress bar must not go to one (pytest captures it).
        sys.stderr = open(os.devnull, "w")
        if at == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (PROBE // 2, resource.RLIM_INFINITY))
        try:
            sweep(SETTINGS, fills, store)
        except OSError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
            log.with_suffix(".error").write_text(str(error))
            os._exit(3)

    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    return process


@pytest.mark.parametrize(("at", "n_kept"), [(0, 0), (4, 3)])
def test_a_full_disk_stops_a_sweep_early_with_a_clear_error_and_loses_nothing(
    store, tmp_path, at, n_kept
):
    log = tmp_path / "log"
    log.touch()
    assert limited(store, log, at).exitcode == 3
    assert "cannot write to" in (said := log.with_suffix(".error").read_text())
    assert "Finished settings are safe there" in said and "File too large" in said
    assert n_lines(log) == at and kept(store) == n_kept
    assert len(list(store.folder.iterdir())) == n_kept, "temporary files are left"
    assert sweep(SETTINGS, square, store)["square"].tolist() == SQUARES


def test_an_error_while_an_entry_is_put_in_place_leaves_no_half_entry(store, monkeypatch):
    def fails(self, target):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="Input/output error"):
        sweep(SETTINGS, square, store)
    assert not list(store.folder.iterdir())


def test_a_function_that_raises_an_os_error_is_a_failed_setting(store):
    def fails(x, kind):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert sweep(SETTINGS[:2], fails, store)["error"].str.contains("No space left").all()

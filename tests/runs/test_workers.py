"""Calls in other processes: on a Dask cluster of two workers, one of them killed, and by joblib.

The functions are nested, and so pickled by value, as a notebook's are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock, Thread

import pandas as pd
import pytest
import torch
from distributed import Client, LocalCluster

from helpers.activation_scaling import grid
from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.objective import Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.observable_propagation.search import search_paths
from helpers.prompts.prompts import Prompts
from helpers.runs import workers
from helpers.runs.sweep import Store, sweep
from helpers.runs.workers import LIMIT, connect, parallel_map
from tests.conftest import random_model

# One cluster, on one worker of pytest-xdist.
pytestmark = [pytest.mark.unit, pytest.mark.slow, pytest.mark.xdist_group("cluster")]
ROOT = Path(__file__).parents[2]
DASK = str(Path(sys.executable).with_name("dask"))
LLAMA = "HuggingFaceTB/SmolLM2-135M-Instruct"
SETTINGS = [{"seed": seed, "margin": margin} for seed in range(4) for margin in (0, 1, 10)]


@pytest.fixture(scope="module")
def llama(tokenizer):
    return random_model(LLAMA, tokenizer)


@pytest.fixture(scope="module")
def loads(tmp_path_factory) -> Path:
    """A line for each model that a worker loads."""
    return tmp_path_factory.mktemp("workers") / "loads"


@pytest.fixture(scope="module")
def scheduler(loads) -> Iterator[str]:
    """The address of a scheduler with two workers, started as the page on scaling says."""
    about, log = loads.with_name("scheduler.json"), loads.with_name("log").open("w")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOADS": str(loads)}
    environment |= {"BOOK_SCHEDULER": "", "OMP_NUM_THREADS": "1"}
    # By a variable, since with --preload the command itself would import torch too.
    preload = [str(Path(__file__).with_name("tiny_worker.py"))]
    environment["DASK_DISTRIBUTED__WORKER__PRELOAD"] = repr(preload)
    shared = ["--no-dashboard", "--scheduler-file", str(about)]
    scheduler = [DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", *shared]
    worker = [DASK, "worker", "--nworkers", "2", "--nthreads", "1", *shared]
    worker += ["--local-directory", str(loads.parent)]
    processes = []
    try:
        for command in (scheduler, worker):
            run = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
            processes.append(run)
        wait_for(about.is_file)
        address = json.loads(about.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=300)  # they import torch first
        yield address
    finally:
        workers._client.cache_clear()
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def on_cluster(scheduler, monkeypatch) -> Callable[[], None]:
    """From its call on, BOOK_SCHEDULER is as if set."""
    return partial(set_scheduler, monkeypatch, scheduler)


def set_scheduler(monkeypatch, address: str) -> None:
    monkeypatch.setattr(workers, "SETTINGS", replace(workers.SETTINGS, scheduler=address))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def last_lines(log: Path) -> dict[str, str]:
    """The last line of each worker."""
    return {line.split()[-1]: line for line in lines(log)}


def fitting(log: Path, pause: float = 0.0) -> Callable[..., dict]:
    """A setting's fit and its evaluation, logged at the start and at the end."""

    def run(model, seed: int, margin: float) -> dict:
        with log.open("a") as file:
            file.write(f"start {seed} {margin} {os.getpid()}\n")
        time.sleep(pause)
        generator = torch.Generator().manual_seed(seed)
        words = torch.randint(1, 100, (3, 5), generator=generator).tolist()
        texts = [" ".join(f"w{i}" for i in row[:3]) for row in words]
        answers = [[f"w{row[k]}" for row in words] for k in (3, 4)]
        prompts = Prompts.of(model, texts, *answers)
        intervention = ActivScalar(Points.of(model, prompts.n_pos), dtype=torch.float64)
        objective = Objective(margin=margin, lambda_f=1)
        how = {"learning_rate": 0.05, "epochs": 3, "seed": seed}
        fit(model, intervention, prompts, objective, **how)
        result = evaluate(model, intervention, prompts)
        with log.open("a") as file:
            file.write(f"end {seed} {margin} {os.getpid()}\n")
        return {"E0": result.E0, "F": result.F}

    return run


@pytest.fixture(scope="module")
def serial(llama, tmp_path_factory) -> pd.DataFrame:
    """The sweep in one process."""
    folder = tmp_path_factory.mktemp("serial")
    table = sweep(SETTINGS, fitting(folder / "log"), Store(folder / "store"), model=llama)
    assert (table["error"] == "").all() and table["E0"].nunique() > 6
    return table.drop(columns="seconds")


def test_a_sweep_on_a_cluster_gives_what_one_process_gives_and_loads_the_model_once_a_worker(
    on_cluster, llama, serial, loads, tmp_path
):
    on_cluster()
    log = tmp_path / "log"
    for name in ("first", "second"):  # the second finds the model loaded
        table = sweep(SETTINGS, fitting(log), Store(tmp_path / name), model=llama)
        pd.testing.assert_frame_equal(table.drop(columns="seconds"), serial)
    ran_in = {line.split()[-1] for line in lines(log)}
    assert len(ran_in) == 2 and str(os.getpid()) not in ran_in
    assert sorted(line.split()[0] for line in lines(loads)) == sorted(ran_in)


def test_a_killed_worker_loses_nothing_but_what_it_has_not_handed_over(
    on_cluster, llama, serial, loads, tmp_path
):
    on_cluster()
    log, store, tables = tmp_path / "log", tmp_path / "store", []

    def work():
        tables.append(sweep(SETTINGS, fitting(log, 0.3), Store(store), model=llama))

    thread = Thread(target=work)
    thread.start()
    wait_for(lambda: len([*store.glob("*.json")]) >= 3)
    wait_for(lambda: any(line.startswith("start") for line in last_lines(log).values()))
    last = last_lines(log)
    killed = next(pid for pid, line in last.items() if line.startswith("start"))
    handed_over = [json.loads(file.read_text())["setting"] for file in store.glob("*.json")]
    os.kill(int(killed), signal.SIGKILL)
    thread.join(120)
    pd.testing.assert_frame_equal(tables[0].drop(columns="seconds"), serial)
    begun = Counter(line.rsplit(" ", 1)[0] for line in lines(log) if line.startswith("start"))
    twice = {setting for setting, n in begun.items() if n > 1}
    # The one under way runs again, and so may a result that was still on its way; what the store
    # had by then does not.
    assert len(begun) == len(SETTINGS) and last[killed].rsplit(" ", 1)[0] in twice
    assert len(handed_over) >= 3 and max(begun.values()) == 2
    assert not twice & {f"start {one['seed']} {one['margin']}" for one in handed_over}
    assert max(Counter(line.split()[0] for line in lines(loads)).values()) == 1


def test_a_path_search_on_a_cluster_gives_what_one_process_gives(on_cluster, llama, monkeypatch):
    monkeypatch.setattr("helpers.observable_propagation.search.GROUP", 3)  # something to share
    generator = torch.Generator().manual_seed(0)
    m = torch.randn(2, llama.cfg.d_model, dtype=torch.float64, generator=generator)
    W_U = llama.W_U.clone()

    def score(features, layer, path):
        read = features @ W_U  # [observable head d_vocab]
        return read[0].norm(dim=-1) * (1 + layer) - read[1].norm(dim=-1)

    here = search_paths(llama, m, score, max_length=2, keep=5)
    on_cluster()
    there = search_paths(llama, m, score, max_length=2, keep=5)
    assert there.n_searched == here.n_searched > 5
    for length, paths in here.found.items():
        for a, b in zip(paths, there.found[length], strict=True):
            assert str(a) == str(b) and a.score == b.score and a.features.equal(b.features)


def test_a_model_of_one_s_own_is_refused_before_a_setting_is_computed(
    on_cluster, tokenizer, tmp_path
):
    on_cluster()
    other, log = random_model(LLAMA, tokenizer, seed=1), tmp_path / "log"
    with pytest.raises(RuntimeError, match="is not the one in use.* without BOOK_SCHEDULER only"):
        sweep(SETTINGS, fitting(log), Store(tmp_path / "store"), model=other)
    assert not lines(log) and not list((tmp_path / "store").glob("*.json"))


def test_a_worker_with_other_code_is_refused(on_cluster, monkeypatch):
    on_cluster()
    assert list(parallel_map(lambda x: x + 1, [(1,), (2,)])) == [2, 3]
    monkeypatch.setattr("helpers.activation_scaling.objective.NEGLIGIBLE", 0.5)
    with pytest.raises(RuntimeError, match="other code or other settings .* from the same copy"):
        list(parallel_map(lambda x: evaluate(x), [(1,)]))


def test_a_worker_with_several_threads_is_refused(monkeypatch):
    threads = {"n_workers": 1, "threads_per_worker": 2, "processes": False}
    with LocalCluster(**threads, dashboard_address="127.0.0.1:0") as local:
        monkeypatch.setattr(workers, "connect", local.get_client)
        with pytest.raises(RuntimeError, match="--nthreads 1"):
            list(parallel_map(lambda: time.sleep(0.5), [(), ()]))


def test_what_is_big_or_cannot_be_pickled_is_refused(on_cluster):
    on_cluster()
    weight = torch.zeros(LIMIT // 8 + 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="more than 1.0 MB.* names and seeds"):
        parallel_map(lambda: weight, [()])
    with pytest.raises(ValueError, match="cannot be sent .* pickle"):
        parallel_map(partial(print, Lock()), [()])


def test_a_scheduler_needs_no_torch_to_pass_calls_on():
    code = "import sys, helpers.runs.workers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_scheduler_out_of_reach_is_said_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 1)
    set_scheduler(monkeypatch, "tcp://127.0.0.1:9")
    monkeypatch.setattr(grid, "load_model", lambda: pytest.fail("the model was loaded"))
    expected = "tcp://127.0.0.1:9: no scheduler .* or unset BOOK_SCHEDULER"
    with pytest.raises(ConnectionError, match=expected):
        grid.main(["--out", "never.csv"])


def test_dask_that_is_not_installed_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    # Not the client that another test may have left for this address.
    monkeypatch.setattr(workers, "_client", workers._client.__wrapped__)
    set_scheduler(monkeypatch, "local:1")
    expected = r"BOOK_SCHEDULER=local:1 needs Dask.*\[cluster\]"
    with pytest.raises(ModuleNotFoundError, match=expected):
        connect()


def test_without_a_scheduler_calls_run_here_one_after_the_other_with_nothing_pickled():
    lock, done = Lock(), []  # a lock cannot be pickled

    def call(x):
        with lock:
            done.append(x)
        return os.getpid(), len(done)

    assert list(parallel_map(call, [(1,), (2,), (3,)])) == [(os.getpid(), n) for n in (1, 2, 3)]
    assert connect() is None

"""Sweeps, searches and evaluations on a Dask cluster: a scheduler, two worker processes, and one of them killed on the way.

The functions of these tests are nested, as a notebook's own are for pickle: they travel by value, with the model they hold.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Lock, Thread, current_thread

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
from helpers.runs import workers as cluster
from helpers.runs.sweep import Store, sweep, table
from helpers.runs.workers import LIMIT, connect, pack, parallel_map, unpack
from tests.conftest import random_model

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
DASK = Path(sys.executable).with_name("dask")
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
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LOADS": str(loads),
        "BOOK_DEVICE": "cpu",
        "BOOK_SCHEDULER": "",
    }
    commands = [
        [
            DASK,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            about,
        ],
        [
            DASK,
            "worker",
            "--nworkers",
            "2",
            "--nthreads",
            "1",
            "--no-dashboard",
            "--scheduler-file",
            about,
            "--local-directory",
            loads.parent,
        ],
    ]
    # Not by --preload, for which the command itself would import torch too.
    environment |= {
        "DASK_DISTRIBUTED__WORKER__PRELOAD": repr([str(Path(__file__).with_name("tiny_worker.py"))])
    }
    processes = [
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
        for command in commands
    ]
    try:
        wait_for(about.is_file)
        address = json.loads(about.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=300)  # they import torch first
        yield address
    finally:
        cluster._client.cache_clear()
        for process in processes[::-1]:  # the workers first, which the scheduler would wait for
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def on_cluster(scheduler, monkeypatch) -> Callable[[], None]:
    """From its call on, BOOK_SCHEDULER is as if set."""
    return lambda: monkeypatch.setattr(
        cluster, "SETTINGS", replace(cluster.SETTINGS, scheduler=scheduler)
    )


def wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def fitting(model, log: Path, pause: float = 0.0) -> Callable[..., dict]:
    """A setting's fit and its evaluation, with a line in the log at the start and at the end."""

    def run(seed: int, margin: float) -> dict:
        with log.open("a") as file:
            file.write(f"start {seed} {margin} {os.getpid()}\n")
        time.sleep(pause)
        words = torch.randint(
            1, 100, (3, 5), generator=torch.Generator().manual_seed(seed)
        ).tolist()
        prompts = Prompts.of(
            model,
            [" ".join(f"w{i}" for i in row[:3]) for row in words],
            *[[f"w{row[k]}" for row in words] for k in (3, 4)],
        )
        intervention = ActivScalar(Points.of(model, prompts.n_pos), dtype=torch.float64)
        fit(
            model,
            intervention,
            prompts,
            Objective(margin=margin, lambda_f=1),
            learning_rate=0.05,
            epochs=3,
            seed=seed,
        )
        result = evaluate(model, intervention, prompts)
        with log.open("a") as file:
            file.write(f"end {seed} {margin} {os.getpid()}\n")
        return {"E0": result.E0, "F": result.F}

    return run


@pytest.fixture(scope="module")
def serial(llama, tmp_path_factory) -> pd.DataFrame:
    """The sweep in one process."""
    folder = tmp_path_factory.mktemp("serial")
    return sweep(SETTINGS, fitting(llama, folder / "log"), Store(folder / "store", {})).drop(
        columns="seconds"
    )


def test_a_sweep_on_a_cluster_gives_what_one_process_gives_and_each_worker_loads_the_model_once(
    on_cluster, llama, serial, loads, tmp_path
):
    on_cluster()
    log = tmp_path / "log"
    for name in ("first", "second"):  # the second finds the model loaded
        result = sweep(SETTINGS, fitting(llama, log), Store(tmp_path / name, {}))
        pd.testing.assert_frame_equal(result.drop(columns="seconds"), serial)
    ran_in = {line.split()[-1] for line in lines(log)}
    assert len(ran_in) == 2 and str(os.getpid()) not in ran_in
    assert sorted(line.split()[0] for line in lines(loads)) == sorted(ran_in)


def test_a_killed_worker_loses_nothing_and_only_its_setting_under_way_is_begun_again(
    on_cluster, llama, serial, loads, tmp_path
):
    on_cluster()
    log, tables = tmp_path / "log", []
    work = Thread(
        target=lambda: tables.append(
            sweep(SETTINGS, fitting(llama, log, pause=0.3), Store(tmp_path / "store", {}))
        )
    )
    work.start()
    wait_for(lambda: len([line for line in lines(log) if line.startswith("end")]) >= 3)
    begun = {line.split()[-1]: line for line in lines(log)}  # the last line of each worker
    killed = next(pid for pid, line in begun.items() if line.startswith("start"))
    os.kill(int(killed), signal.SIGKILL)
    work.join(120)
    (result,) = tables
    pd.testing.assert_frame_equal(result.drop(columns="seconds"), serial)
    pd.testing.assert_frame_equal(
        table(SETTINGS, Store(tmp_path / "store", {})).drop(columns="seconds"), serial
    )
    of_setting = Counter(line.rsplit(" ", 1)[0] for line in lines(log))
    under_way = begun[killed].rsplit(" ", 1)[0]
    twice = {line: n for line, n in of_setting.items() if n > 1}
    assert (
        set(twice) <= {under_way, under_way.replace("start", "end")} and of_setting[under_way] == 2
    )
    assert max(Counter(line.split()[0] for line in lines(loads)).values()) == 1


def test_a_path_search_on_a_cluster_gives_what_one_process_gives(on_cluster, llama, monkeypatch):
    monkeypatch.setattr(
        "helpers.observable_propagation.search.GROUP", 3
    )  # so that there is something to share
    m = torch.randn(
        2, llama.cfg.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def score(features, layer, chain):  # holds the model, as a notebook's function may
        read = features @ llama.W_U  # [observable head d_vocab]
        return read[0].norm(dim=-1) * (1 + layer) - read[1].norm(dim=-1)

    def search():
        return search_paths(llama, m, score, max_length=2, keep=5)

    here = search()
    on_cluster()
    there = search()
    assert there.n_searched == here.n_searched > 5
    for length, paths in here.found.items():
        assert [(found.chain, found.score) for found in there.found[length]] == [
            (found.chain, found.score) for found in paths
        ]
        assert all(a.features.equal(b.features) for a, b in zip(there.found[length], paths))


def test_evaluations_on_a_cluster_give_what_one_process_gives(on_cluster, llama, scheduler):
    prompts = Prompts.of(llama, ["w1 w2 w3", "w4 w5 w6"], ["w10", "w11"], ["w13", "w14"])
    calls = []
    for seed in range(4):
        scalars = ActivScalar(Points.of(llama, prompts.n_pos), dtype=torch.float64)
        scalars.reset(seed, std=0.5)
        calls.append((scalars, prompts))

    def measure(intervention, prompts):
        return evaluate(llama, intervention, prompts), os.getpid()

    here = [result for result, _ in parallel_map(measure, calls)]
    on_cluster()
    there, processes = zip(*parallel_map(measure, calls))
    assert list(there) == here and len(set(here)) == 4
    assert os.getpid() not in processes


def test_a_model_of_one_s_own_is_refused_before_a_setting_is_computed(
    on_cluster, tokenizer, tmp_path
):
    on_cluster()
    other, log = random_model(LLAMA, tokenizer, seed=1), tmp_path / "log"
    with pytest.raises(RuntimeError, match="weights .* are not those .* without BOOK_SCHEDULER"):
        sweep(SETTINGS, fitting(other, log), Store(tmp_path / "store", {}))
    assert not lines(log) and not list((tmp_path / "store").glob("*.json"))


def test_a_worker_that_does_not_see_the_store_is_refused_before_a_setting_is_computed(
    on_cluster, llama, tmp_path, monkeypatch
):
    on_cluster()
    log = tmp_path / "log"
    store = Store(tmp_path / "store", {})
    # As from a machine with a folder of its own at the same place: the file of this sweep is not in it.
    monkeypatch.setattr(
        Store,
        "sign",
        lambda self: nullcontext(tmp_path / "store" / ".locks" / "sweep-of-another-machine"),
    )
    with pytest.raises(FileNotFoundError, match="does not see the store .* set BOOK_CACHE"):
        sweep(SETTINGS, fitting(llama, log), store)
    assert not lines(log)


def test_a_worker_with_several_threads_is_refused():
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as local:
        with pytest.raises(RuntimeError, match="--nthreads 1"):
            connect(local.scheduler_address)


def test_a_single_worker_gets_the_work_and_not_the_process_that_waits_for_it():
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as local:
        threads = set(
            parallel_map(
                lambda x: current_thread().name, [(1,), (2,)], address=local.scheduler_address
            )
        )
        cluster._client.cache_clear()
    assert threads and current_thread().name not in threads


def test_a_worker_with_other_code_is_refused(monkeypatch):
    packed, arguments = pack(abs), pickle.dumps((-2,))
    assert packed(arguments) == unpack(packed, arguments) == 2
    with pytest.raises(RuntimeError, match="another version of the helpers"):
        replace(packed, code="another")(arguments)


def test_a_model_travels_as_its_name_and_what_is_big_is_refused(llama):
    weight = torch.zeros(LIMIT // 8 + 1, dtype=torch.float64)
    assert len(pack(lambda: llama).content) < 2000
    with pytest.raises(ValueError, match="from names, seeds and the model"):
        pack(lambda: weight)


def test_the_scheduler_needs_no_torch_to_pass_calls_on():
    code = "import sys, helpers.runs.packed; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_scheduler_out_of_reach_is_said_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    monkeypatch.setattr(
        cluster, "SETTINGS", replace(cluster.SETTINGS, scheduler="tcp://127.0.0.1:9")
    )
    monkeypatch.setattr(grid, "load_model", lambda: pytest.fail("the model was loaded"))
    with pytest.raises(
        ConnectionError, match="tcp://127.0.0.1:9: no scheduler .* or unset BOOK_SCHEDULER"
    ):
        grid.main(["--out", "never.csv"])


def test_dask_that_is_not_installed_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"BOOK_SCHEDULER=local:2 needs Dask.*\[cluster\]"
    ):
        connect("local:2")


def test_without_a_scheduler_calls_run_here_one_after_the_other_with_nothing_pickled():
    lock = Lock()  # which cannot be pickled
    done = []

    def call(x):
        with lock:
            done.append(x)
        return os.getpid(), len(done)

    assert list(parallel_map(call, [(1,), (2,), (3,)])) == [(os.getpid(), n) for n in (1, 2, 3)]
    assert connect() is None

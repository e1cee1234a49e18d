"""Map a function over calls: in this process, or on the Dask cluster that BOOK_SCHEDULER names.

The results are the same everywhere: a worker refuses to run with other code, settings or weights
than the process that sends the call.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import cloudpickle

from helpers.runs.code import ROOT
from helpers.runs.digest import digest_of
from helpers.settings import SETTINGS, refuse

LIMIT = 1 << 20  # bytes of a pickled function, which is sent with every call
# Seconds to wait for a scheduler and its first worker, which imports torch before it registers.
PATIENCE = 60
# Held while a worker runs a call: two in one process would put their hooks on the same model.
_busy = threading.Lock()


def parallel_map(
    function: Callable[..., Any],
    calls: Iterable[tuple],
    *,
    model: Any = None,
    in_order: bool = True,
) -> Iterator[Any]:
    """``function(*call)`` for every call; ``function(model, *call)`` where a model is given.

    Args:
        function: pickled by value for other processes.
        calls: tuples of arguments, pickled too.
        model: the one that ``BOOK_MODEL`` names, if workers are to run it: each loads it once.
        in_order: whether results come in the order of the calls, or as they are ready.

    Returns:
        An iterator over the results. The first error of a call comes out of it.

    Raises:
        ValueError: the function cannot be pickled, or takes too much along.
        ModuleNotFoundError, ConnectionError: as :func:`connect`.
        RuntimeError: a worker has other code, settings, weights or device, or several threads.
    """
    client = None if _busy.locked() else connect()  # a worker runs its own sweeps itself
    if client is None:
        here = function if model is None else partial(function, model)
        return (here(*call) for call in calls)
    # As bytes, so that the scheduler need not import what the function needs.
    folder = Path.cwd()
    folder = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    same = None if model is None else (model.W_U.dtype, *_identity(model))
    remote = partial(_call, _pickled(function), digest_of(function), folder, same)
    return _on_cluster(client, remote, calls, in_order)


def _pickled(function: Callable[..., Any]) -> bytes:
    try:
        content = cloudpickle.dumps(function)
        if len(content) > LIMIT:
            size = f"{len(content) / 1e6:,.1f} MB along with every call"
            raise ValueError(f"it takes {size}, more than {LIMIT / 1e6:.1f} MB")
    except Exception as error:
        raise ValueError(
            f"the function cannot be sent to other processes: {error}. Let it make prompts and "
            "activations from names and seeds, and take the model as its first argument."
        ) from error
    return content


def _identity(model: Any) -> tuple[str, str]:
    # Imported here: it takes seconds, and a Dask scheduler needs none of it.
    from helpers.models.load import device_of, fingerprint

    return device_of(model).type, fingerprint(model)


def _on_cluster(
    client: Any, remote: Callable[..., Any], calls: Iterable[tuple], in_order: bool
) -> Iterator[Any]:
    from distributed import as_completed

    # All at once, for workers that join later.
    futures = [client.submit(remote, *arguments, pure=False) for arguments in calls]
    try:
        for future in futures if in_order else as_completed(futures, loop=client.loop):
            result = future.result()
            future.release()  # else the scheduler computes it again if its worker dies
            yield result
    finally:
        client.cancel(futures)


def _call(content: bytes, code: str, folder: Path, same: tuple | None, *arguments: Any) -> Any:
    """Run a pickled function, in a worker."""
    if not _busy.acquire(blocking=False):
        raise RuntimeError(
            "a worker runs several calls at once, and their hooks would be on the same model. "
            "Start it with --nthreads 1; --nworkers sets the number of processes."
        )
    try:
        function = _unpickled(content, code, folder)
        return function(*arguments) if same is None else function(_model(*same), *arguments)
    finally:
        _busy.release()


@lru_cache(maxsize=1)
def _unpickled(content: bytes, code: str, folder: Path) -> Callable[..., Any]:
    function = pickle.loads(content)
    if digest_of(function, ROOT / folder) != code:
        raise RuntimeError(
            f"a worker has other code or other settings than the process that sends it work: its "
            f"copy of the book is {ROOT}, its settings are {SETTINGS}. Start the workers from the "
            "same copy, with the same BOOK_* variables, and again after every change."
        )
    return function


@lru_cache(maxsize=1)
def _model(dtype: Any, device: str, weights: str) -> Any:
    from helpers.models.load import load_model

    model = load_model(dtype=dtype)
    if _identity(model) != (device, weights):
        raise RuntimeError(
            f"a worker's model ({SETTINGS}; on {_identity(model)[0]}) is not the one in use, which "
            f"is on {device}: other weights or another kind of device. Start the workers with the "
            "same BOOK_MODEL and BOOK_DEVICE; a model of your own runs without BOOK_SCHEDULER only."
        )
    return model


def connect() -> Any:
    """The Dask client of ``BOOK_SCHEDULER``; None where it is not set.

    ``local:2`` starts two workers on this machine, which end with this process.

    Raises:
        ModuleNotFoundError: Dask is not installed.
        ConnectionError: no scheduler answers there, or it has no worker.
    """
    if not SETTINGS.scheduler:
        return None
    try:
        if _client(SETTINGS.scheduler).status != "running":  # that scheduler is gone; try again
            _client.cache_clear()
        return _client(SETTINGS.scheduler)
    except (ModuleNotFoundError, ConnectionError) as error:
        refuse(error)


@cache
def _client(address: str) -> Any:
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"BOOK_SCHEDULER={address} needs Dask, which is not installed ({error}): pip install "
            "-c constraints.txt -e '.[cluster]', or unset BOOK_SCHEDULER."
        ) from error
    target = address
    if address.startswith("local:"):
        n_workers = int(address.removeprefix("local:"))
        # Any free port, and only for this machine.
        where = {"dashboard_address": "127.0.0.1:0"}
        target = LocalCluster(n_workers=n_workers, threads_per_worker=1, **where)
    try:
        client = Client(target, timeout=PATIENCE, set_as_default=False)
        client.wait_for_workers(1, timeout=PATIENCE)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"BOOK_SCHEDULER={address}: no scheduler with a worker answers within {PATIENCE} "
            f"seconds ({error}). Start both (dask scheduler; dask worker {address} --nthreads 1), "
            "or unset BOOK_SCHEDULER to run in this process."
        ) from error
    return client

"""Map a function over calls: in this process, in several, or on a Dask cluster.

``BOOK_SCHEDULER`` names the cluster (see ``helpers.settings``). The results are the same
everywhere, since a worker refuses to run with other code than the process that sends the call.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import cloudpickle
from joblib import Parallel, delayed

from helpers.runs.by_name import to_models, to_names
from helpers.runs.code import ROOT
from helpers.runs.digest import digest_of
from helpers.settings import SETTINGS

# Maximum size of a pickled function in bytes; it is sent with every call.
LIMIT = 1 << 20
# Seconds to wait for a scheduler and its first worker, which imports torch before it registers.
PATIENCE = 60
# Held while a worker runs a call: two in one process would put their hooks on the same model.
_busy = threading.Lock()


def parallel_map(
    function: Callable[..., Any],
    calls: Iterable[tuple],
    *,
    n_jobs: int = 1,
    in_order: bool = True,
) -> Iterator[Any]:
    """``function(*call)`` for every call.

    Args:
        function: pickled by value. A model that a :class:`functools.partial` holds is sent by its
            name, and each worker loads it once; otherwise let the function make what it needs
            from names and seeds.
        calls: tuples of arguments, pickled too.
        n_jobs: processes of this machine; 1 is this process, and nothing is pickled. With
            ``BOOK_SCHEDULER`` all workers of the cluster are used instead.
        in_order: whether results come in the order of the calls, or as they are ready.

    Returns:
        An iterator over the results. The first error of a call comes out of it.

    Raises:
        ValueError: the function cannot be pickled, or takes too much along.
        ModuleNotFoundError, ConnectionError: as :func:`connect`.
        RuntimeError: a worker has other code, settings, weights or device, or several threads.
    """
    client = None if _busy.locked() else connect()  # a worker runs its own sweeps itself
    if client is None and n_jobs == 1:
        return (function(*call) for call in calls)
    call = _packed(function)
    if client is not None:
        return _on_cluster(client, call, calls, in_order)
    order = "generator" if in_order else "generator_unordered"
    return Parallel(n_jobs, return_as=order)(delayed(call)(*arguments) for arguments in calls)


def _packed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that carries another one as bytes, so that a scheduler need not import it."""
    function, folder = to_names(function), Path.cwd()
    if folder.is_relative_to(ROOT):
        folder = folder.relative_to(ROOT)
    file = _Limited()
    try:
        cloudpickle.Pickler(file).dump(function)
    except Exception as error:
        raise ValueError(
            f"the function cannot be sent to other processes: {error}. Let it make prompts and "
            "activations from names and seeds, and give it the model by functools.partial."
        ) from error
    return partial(_call, file.getvalue(), digest_of(function), folder)


class _Limited(io.BytesIO):
    """A buffer that refuses a large pickle early."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > LIMIT:
            raise ValueError(f"it takes more than {LIMIT / 1e6:.1f} MB along with every call")
        return super().write(data)


def _call(content: bytes, code: str, folder: Path, *arguments: Any) -> Any:
    """Run a packed function, in a worker."""
    if not _busy.acquire(blocking=False):
        raise RuntimeError(
            "a worker runs several calls at once, and their hooks would be on the same model. "
            "Start it with --nthreads 1; --nworkers sets the number of processes."
        )
    try:
        return _unpacked(content, code, folder)(*arguments)
    finally:
        _busy.release()


@lru_cache(maxsize=1)
def _unpacked(content: bytes, code: str, folder: Path) -> Callable[..., Any]:
    function = pickle.loads(content)
    if digest_of(function, ROOT / folder) != code:
        raise RuntimeError(
            f"a worker has other code or other settings than the process that sends it work: its "
            f"copy of the book is {ROOT}, its settings are {SETTINGS}. Start the workers from the "
            "same copy, with the same BOOK_* variables, and again after every change."
        )
    return to_models(function)


def _on_cluster(
    client: Any, call: Callable[..., Any], calls: Iterable[tuple], in_order: bool
) -> Iterator[Any]:
    from distributed import as_completed

    # All at once, for workers that join later.
    futures = [client.submit(call, *arguments, pure=False) for arguments in calls]
    try:
        for future in futures if in_order else as_completed(futures, loop=client.loop):
            result = future.result()
            future.release()  # else the scheduler computes it again if its worker dies
            yield result
    finally:
        client.cancel(futures)


def connect() -> Any:
    """The Dask client of ``BOOK_SCHEDULER``; None where it is not set.

    ``local:2`` starts two workers on this machine, which end with this process.

    Raises:
        ModuleNotFoundError: Dask is not installed.
        ConnectionError: no scheduler answers there, or it has no worker.
    """
    if not SETTINGS.scheduler:
        return None
    if _client(SETTINGS.scheduler).status != "running":  # that scheduler is gone; try again
        _client.cache_clear()
    return _client(SETTINGS.scheduler)


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

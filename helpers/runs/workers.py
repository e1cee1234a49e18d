"""Calls that run here, in several processes of this machine, or on a Dask cluster: the same function, the same results.

``BOOK_SCHEDULER`` says where (see ``helpers.settings``). joblib hands the calls out. What a function needs travels with it
once a call, as a few bytes, because a model in it travels by name: each process loads the model itself, once, and checks
that the weights are the same.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from joblib import Parallel, delayed, parallel_config
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import device_of, fingerprint, load_model, resolve_device
from helpers.runs.packed import Packed
from helpers.settings import MODEL_NAMES, SETTINGS

# Of a function with what it holds, in bytes: it travels with every call, and the scheduler keeps those of all calls.
LIMIT = 1 << 20
# Seconds that a scheduler may take to answer, and its first worker to come; a worker imports torch before it comes.
PATIENCE = 60
# A checksum of this package, of the time when it was imported: what runs is what was there then.
CODE = hashlib.sha256(
    b"\0".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()[:16]


def parallel_map(
    function: Callable[..., Any],
    calls: Iterable[tuple],
    *,
    n_jobs: int = 1,
    in_order: bool = True,
    address: str | None = None,
) -> Iterator[Any]:
    """``function(*call)`` for every call: one after the other here, or several at once elsewhere.

    Args:
        function: what it holds (a closure's variables, a partial's arguments) goes along to other processes by value, apart
            from models, which :func:`helpers.models.load.load_model` loads there by their names.
        calls: the arguments, a tuple a call, which travel likewise; keep them small.
        n_jobs: processes of this machine, as joblib counts them; 1 is this process, with no pickling.
        in_order: whether results come in the order of the calls, or as they are ready.
        address: of the scheduler, as ``BOOK_SCHEDULER`` has it; None takes it from the settings. Where there is one, its
            workers run the calls and ``n_jobs`` does not count.

    Returns:
        An iterator over the results; the first error of a call comes out of it.

    Raises:
        ValueError: the function holds more than it may take along.
        ModuleNotFoundError, ConnectionError, RuntimeError: as :func:`connect`.
    """
    # A worker's own searches and sweeps stay in that worker.
    client = None if _in_worker() else connect(address)
    if client is None and n_jobs == 1:
        return (function(*call) for call in calls)
    packed = pack(function)
    # Workers that join later shall find calls that wait for them, so all are handed in at once.
    how = {"n_jobs": n_jobs} if client is None else {"n_jobs": -1, "pre_dispatch": "all"}
    with parallel_config(_backend(client)) if client else nullcontext():
        parallel = Parallel(return_as="generator" if in_order else "generator_unordered", **how)
    return parallel(delayed(packed)(_dumps(call)) for call in calls)


def _backend(client: Any) -> Any:
    from joblib._dask import (
        DaskDistributedBackend,  # by its class, to mend it: "dask" is its name for everybody
    )

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            # For a single worker joblib would leave that one idle and run everything in this process.
            return max(2, super().effective_n_jobs(n_jobs))

    return Backend(client=client)


def pack(function: Callable[..., Any]) -> Packed:
    """A function for other processes.

    Raises:
        ValueError: it holds more than it may take along.
    """
    content = _dumps(function)
    if len(content) > LIMIT:
        raise ValueError(
            f"the function takes {len(content) / 1e6:,.1f} MB along to other processes with every call, and {LIMIT / 1e6:,.1f} MB is the most. "
            "Let it make prompts, activations and weights itself, from names, seeds and the model."
        )
    return Packed(content, CODE)


def unpack(packed: Packed, arguments: bytes) -> Any:
    """The result of a packed function, called with packed arguments, in the process that it came to."""
    return _loads(packed.content, packed.code)(*pickle.loads(arguments))


def _dumps(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, TransformerBridge):
            names = {official: name for name, official in MODEL_NAMES.items()}
            name = names.get(value.cfg.model_name, value.cfg.model_name)
            return _loaded, (name, device_of(value).type, value.W_U.dtype, fingerprint(value))
        return super().reducer_override(value)


@lru_cache(
    maxsize=1
)  # calls of one function come together; of two, the models would take twice the memory
def _loads(content: bytes, code: str) -> Callable[..., Any]:
    check_code(code)
    if _in_worker():  # one that came after connect has not been looked at yet
        from distributed import get_worker

        check_threads(get_worker().state.nthreads)
    return pickle.loads(content)


@lru_cache(maxsize=1)  # one model a process: a worker that goes on to another gives up the first
def _loaded(name: str, device: str, dtype: torch.dtype, weights: str) -> TransformerBridge:
    """The model of that name, loaded here; device is the kind of device that the results are kept for.

    Raises:
        RuntimeError: it is not the one that the function was made with, or on another kind of device.
    """
    place = resolve_device(SETTINGS.device)
    if place.type != device:
        raise RuntimeError(
            f"a worker computes on {place.type}, and the work is for {device}: results are kept by the kind of device. Set "
            f"BOOK_DEVICE={device} for the workers, or start the work on a machine like theirs."
        )
    # The former model goes before the next one comes, with what holds it.
    _loaded.cache_clear()
    _loads.cache_clear()
    model = load_model(name, SETTINGS.device, dtype)
    if fingerprint(model) != weights:
        raise RuntimeError(
            f"the weights of model {name!r} on a worker are not those of the model that the work was made for, which a worker can only "
            "load by its name. Run a model of your own in one process: without BOOK_SCHEDULER, and with n_jobs = 1."
        )
    return model


def check_code(code: str) -> None:
    """Raise RuntimeError where a worker has other code than the one who gives out the work."""
    if code != CODE:
        raise RuntimeError(
            f"a worker has another version of the helpers, in {Path(__file__).parent}. Start the workers from the same copy of the "
            "book as the work, and anew after a change."
        )


def check_threads(n_threads: int) -> None:
    """Raise RuntimeError for a worker that runs several calls at once."""
    if n_threads > 1:
        raise RuntimeError(
            "a worker runs several calls at once in one process, where their hooks would be on the same model. Start it with --nthreads 1; "
            "--nworkers says how many processes."
        )


def _in_worker() -> bool:
    if "distributed" not in sys.modules:  # it takes a second to import, and every worker has it
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def connect(address: str | None = None) -> Any:
    """The Dask client of a scheduler that answers and has sound workers; None where no scheduler is asked for.

    Args:
        address: as ``BOOK_SCHEDULER`` has it; None takes it from the settings. ``local:2`` starts two workers on this
            machine, which end with this process.

    Raises:
        ModuleNotFoundError: Dask is not installed.
        ConnectionError: no answer from that address, or no worker there.
        RuntimeError: the workers would give wrong results; the message says why and what to do.
    """
    address = SETTINGS.scheduler if address is None else address
    if not address:
        return None
    if _client(address).status != "running":  # that scheduler has gone; another may be there by now
        _client.cache_clear()
    return _client(address)


@cache
def _client(address: str) -> Any:
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"BOOK_SCHEDULER={address} needs Dask, which is not installed ({error}): pip install -c constraints.txt -e '.[cluster]', "
            "or unset BOOK_SCHEDULER."
        ) from error
    if address.startswith("local:"):
        n_workers = int(address.removeprefix("local:"))
        # Any free port, and only for this machine: else two of these warn of each other.
        target = LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        )
    else:
        target = address
    try:
        client = Client(target, timeout=PATIENCE, set_as_default=False)
        client.wait_for_workers(1, timeout=PATIENCE)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"BOOK_SCHEDULER={address}: no scheduler with a worker answers there within {PATIENCE} seconds ({error}). Start both (dask scheduler; "
            f"dask worker {address} --nthreads 1), or unset BOOK_SCHEDULER to run in this process."
        ) from error
    client.run(check_code, CODE)
    check_threads(max(client.nthreads().values()))
    return client

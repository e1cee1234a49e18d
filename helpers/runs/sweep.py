"""A sweep is a list of settings, a function, and a store.

Every finished setting is one file of the store, written at once and in one step. So a sweep that is killed goes on where
it was and loses at most the setting under way; two processes share a store, each taking what the other has not; a setting
that fails is recorded with its error and the rest go on; a damaged file is found by its checksum, said, and computed again.

``helpers.runs.workers`` runs the settings, through joblib: in this process, in several, or on a Dask cluster. joblib's Memory
does not keep the results, because it only warns when a result cannot be written, drops all results when a function's text
changes, has no checksum, and lets two processes do the same work.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from helpers.runs.workers import parallel_map
from helpers.settings import show_progress

Setting = Mapping[str, Any]
# Taken for an entry before its setting is computed, so that a full disk stops a sweep before the work and not after it.
ROOM = 1 << 16


class Store:
    """A folder with one JSON file a setting.

    Attributes:
        folder: where; made when it is not there.
        context: what else a result depends on (model, code, ...), as JSON values. Part of every key: results of
            another context may lie in the same folder and are not mixed up with these.
    """

    def __init__(self, folder: str | Path, context: Mapping[str, Any]) -> None:
        self.folder = Path(folder).absolute()  # other processes may have another working directory
        self.context = json.loads(json.dumps(context))
        (self.folder / ".locks").mkdir(parents=True, exist_ok=True)

    def key(self, setting: Setting) -> str:
        return _digest({"setting": setting, "context": self.context})[:32]

    def path(self, setting: Setting) -> Path:
        return self.folder / f"{self.key(setting)}.json"

    @contextmanager
    def lock(self, setting: Setting, *, wait: bool) -> Iterator[None]:
        """Held while a setting is computed; raises Timeout when another process holds it and ``wait`` is false.

        The system frees it when a process dies, however it dies.
        """
        lock = FileLock(self.folder / ".locks" / self.key(setting))
        with self._saying(self.path(setting).with_suffix(".part")):
            lock.acquire(timeout=-1 if wait else 0)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def sign(self) -> Iterator[Path]:
        """A file in the folder, of a name that was never there before: a process that sees it has the same folder."""
        with self._saying(self.folder / "sign.part"):
            file = tempfile.NamedTemporaryFile(dir=self.folder / ".locks", prefix="sweep-")
        with file:
            yield Path(file.name)

    def read(self, setting: Setting) -> dict[str, Any] | None:
        """The entry of a setting; None when there is none, or a damaged one, of which a warning says why."""
        path = self.path(setting)
        try:
            entry = json.loads(path.read_bytes())
            if entry.pop("checksum") != _digest(entry):
                raise ValueError("its checksum is not that of its contents")
            return entry
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(
                f"the sweep entry {path} is damaged ({error}) and will be computed again.",
                stacklevel=2,
            )
            return None

    def take_room(self, setting: Setting) -> Path:
        """A file with the room that the setting's entry will need; raises OSError when the disk has none."""
        part = self.path(setting).with_suffix(".part")  # the lock's holder alone writes it
        with self._saying(part), part.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, ROOM)
        return part

    def write(self, setting: Setting, entry: Mapping[str, Any], part: Path) -> None:
        """Put the entry on disk in one step: readers see the whole of it or nothing."""
        text = json.dumps({**entry, "checksum": _digest(entry)}, indent=1).encode()
        with self._saying(part):
            with part.open("r+b") as file:
                file.write(text)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path(setting))

    @contextmanager
    def _saying(self, part: Path) -> Iterator[None]:
        """Turns an error of writing into one that says what is safe and what to do."""
        try:
            yield
        except Timeout:  # an OSError too, but one that only says that another process has the lock
            raise
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"the sweep cannot write to {self.folder} ({error.strerror or error}). The finished settings there are safe: "
                "make room and run the same sweep again, and it goes on with the others",
            ) from error


def sweep(
    settings: Sequence[Setting],
    function: Callable[..., Mapping[str, Any]],
    store: Store,
    *,
    n_jobs: int = 1,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Run ``function(**setting)`` for every setting that the store has no result of.

    Args:
        settings: each a mapping of argument names to JSON values.
        function: returns one row of results, names to JSON values.
        store: where the results are kept.
        n_jobs: settings under way at once, each in a process of this machine (``helpers.runs.workers``); one uses all of torch's
            threads already. With ``BOOK_SCHEDULER`` the workers there take them, and the store's folder has to be one
            that they all see.
        retry_failed: compute failed settings again.

    Returns:
        One row a setting, in the order given: its values, its results, ``seconds``, and ``error``, empty if there was none.

    Raises:
        ValueError: a setting is given twice, or the function cannot go to other processes.
        OSError: the store cannot be written, or not seen by a worker; what was finished is on disk.
        ModuleNotFoundError, ConnectionError, RuntimeError: no work with that scheduler, as :func:`helpers.runs.workers.connect`.
    """
    keys = [store.key(setting) for setting in settings]
    if len(set(keys)) < len(keys):
        raise ValueError("a setting is given twice in the sweep.")
    entries = {key: store.read(setting) for key, setting in zip(keys, settings)}
    open_ = [
        setting
        for setting, entry in zip(settings, entries.values())
        if entry is None or (retry_failed and entry["error"])
    ]
    with (
        store.sign() as sign,
        tqdm(
            total=len(settings),
            initial=len(settings) - len(open_),
            unit="setting",
            disable=not show_progress(),
        ) as bar,
    ):
        # First what nobody else has under way; then the rest, waiting for whoever works on it, should that one die.
        for wait in (False, True):
            one = partial(
                _one,
                function=function,
                store=store,
                sign=sign,
                wait=wait,
                retry_failed=retry_failed,
            )
            busy = []
            # Entries come back with the calls: a network's file system may show this process those of others only later.
            for setting, entry in (
                parallel_map(one, [(setting,) for setting in open_], n_jobs=n_jobs, in_order=False)
                if open_
                else ()
            ):
                bar.update(entry is not None)
                if entry is None:
                    busy.append(setting)
                entries[store.key(setting)] = entry
            open_, retry_failed = busy, False
    return _table(entries.values())


def _one(
    setting: Setting,
    *,
    function: Callable,
    store: Store,
    sign: Path,
    wait: bool,
    retry_failed: bool,
) -> tuple[Setting, dict[str, Any] | None]:
    """A setting and its entry, computed unless it is there by now; None where another process has it under way."""
    if not sign.exists():
        raise FileNotFoundError(
            f"this process does not see the store of the sweep, or another one at the same place: {store.folder}. A cluster's sweeps are kept "
            "in a folder that all its machines share: set BOOK_CACHE to one, or give the store such a folder."
        )
    try:
        with store.lock(setting, wait=wait):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a damaged entry was told of before
                entry = store.read(setting)
            if entry is not None and not (retry_failed and entry["error"]):
                return setting, entry
            part = store.take_room(setting)
            start, error, row = time.perf_counter(), "", {}
            try:
                row = dict(function(**setting))
                json.dumps(row)
                if clash := set(row) & set(setting):
                    raise ValueError(
                        f"the function returns {sorted(clash)}, which are names of settings"
                    )
            except Exception as caught:  # recorded, so that one setting cannot stop the others
                row, error = {}, "".join(traceback.format_exception_only(caught)).strip()
            entry = {"setting": dict(setting), "context": store.context, "row": row, "error": error}
            entry = json.loads(
                json.dumps({**entry, "seconds": time.perf_counter() - start})
            )  # as it will be read
            store.write(setting, entry, part)
            return setting, entry
    except Timeout:
        return setting, None


def table(settings: Sequence[Setting], store: Store) -> pd.DataFrame:
    """What the store has of these settings, one row each; settings that it has nothing of are left out."""
    return _table(entry for setting in settings if (entry := store.read(setting)) is not None)


def _table(entries: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **entry["setting"],
                **entry["row"],
                "seconds": entry["seconds"],
                "error": entry["error"],
            }
            for entry in entries
        ]
    )


def code_of(function: Callable) -> str:
    """A checksum of the code that a function's results depend on: results of other code are other results.

    For a function of this package, its module and those of the package that it imports, directly or not; for any other,
    its own text and the whole package.
    """
    package = Path(__file__).parent
    if not function.__module__.startswith("helpers."):
        return _digest(
            [
                inspect.getsource(function),
                *(path.read_text(encoding="utf-8") for path in sorted(package.glob("*.py"))),
            ]
        )[:16]
    found, ahead = {}, [Path(inspect.getfile(function))]
    while ahead:
        path = ahead.pop()
        if path not in found:
            found[path] = path.read_text(encoding="utf-8")
            imported = [
                node.module
                for node in ast.walk(ast.parse(found[path]))
                if isinstance(node, ast.ImportFrom)
            ]
            ahead += [
                package / f"{name.split('.')[1]}.py"
                for name in imported
                if name and name.startswith("helpers.")
            ]
    return _digest([found[path] for path in sorted(found)])[:16]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

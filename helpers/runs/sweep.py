"""A sweep runs a function over settings, and keeps every result in a file of its own.

Only the process that started the sweep writes, each entry in one atomic step. So a sweep that is
killed resumes where it was and loses only the settings under way, and processes that share a
store do each other no harm: at worst they compute a setting twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from tqdm.auto import tqdm

from helpers.runs.digest import digest_of
from helpers.runs.workers import parallel_map
from helpers.settings import show_progress

Setting = Mapping[str, Any]
PROBE = 1 << 16  # bytes written to see whether the disk is full; an entry takes fewer
ADDED = {"seconds", "error"}  # columns that a sweep adds to its settings and results


class Store:
    """A folder with one JSON file for each setting.

    Attributes:
        folder: made when it is not there.
        context: what else results depend on, as JSON values; sweeps add the digest of their
            function. Results of several contexts may share a folder and are not mixed up.
    """

    def __init__(self, folder: str | Path, context: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.context = _as_read(context or {})

    def path(self, setting: Setting) -> Path:
        key = _digest({"setting": setting, "context": self.context})
        return self.folder / f"{key[:32]}.json"

    def read(self, setting: Setting) -> dict[str, Any] | None:
        """The entry of a setting; None if there is none, or if it is damaged, with a warning.

        Raises:
            OSError: it is there and cannot be read, which is no damage.
        """
        path = self.path(setting)
        try:
            entry = json.loads(path.read_bytes())
            if entry.pop("checksum") != _digest(entry):
                raise ValueError("its checksum is wrong")
            if _digest([entry["setting"], entry["context"]]) != _digest([setting, self.context]):
                raise ValueError("it is the entry of another setting")
            return entry
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = f"sweep entry {path} is damaged ({error}); its setting is computed again."
            warnings.warn(said, stacklevel=3)
            return None

    def write(self, setting: Setting, entry: Mapping[str, Any]) -> None:
        """Replace the entry of a setting in one atomic step."""
        text = json.dumps({**entry, "checksum": _digest(entry)}, indent=1)
        self._put(text.encode(), self.path(setting))

    def check_disk(self) -> None:
        """Raise OSError if an entry could not be written."""
        self._put(bytes(PROBE), None)

    def _put(self, content: bytes, path: Path | None) -> None:
        """Write a file and give it its name; without a name it is removed again."""
        part = self.folder / f"{uuid4().hex}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if path is not None:
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the sweep cannot write to {self.folder} ({error.strerror or error}). Finished "
                "settings are safe there: make room and run the sweep again to resume it",
            ) from error


def sweep(
    settings: Sequence[Setting],
    function: Callable[..., Mapping[str, Any]],
    store: Store,
    *,
    model: Any = None,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Run ``function(**setting)`` for every setting that the store has no result of.

    With ``BOOK_SCHEDULER`` the workers of a cluster run them (``helpers.runs.workers``). Where all
    results are there, nothing is written.

    Args:
        settings: names of arguments to JSON values.
        function: returns one row of results, names to JSON values. Results are kept under its
            digest (``helpers.runs.digest``), so those of other code are not taken for its own.
        store: where results are kept.
        model: the function's first argument, if given; its weights are part of the digest.
        retry_failed: compute settings again that failed.

    Returns:
        One row for each setting, in the given order: its values, its results, ``seconds``, and
        ``error``, empty where there was none.

    Raises:
        ValueError: a setting is given twice, or has a name that the table needs.
        TypeError: a setting holds no JSON value, or the function something without a digest.
        OSError: the store cannot be read or written; what was finished is there.
        RuntimeError, ConnectionError, ModuleNotFoundError: as
            :func:`helpers.runs.workers.parallel_map`.
    """
    settings = _as_read(list(settings))
    digests = [_digest(setting) for setting in settings]
    if twice := [one for one, own in zip(settings, digests) if digests.count(own) > 1]:
        raise ValueError(f"the setting {twice[0]} is given twice.")
    if any(ADDED & setting.keys() for setting in settings):
        raise ValueError(f"a setting is named {' or '.join(sorted(ADDED))}: the sweep adds these.")
    # Results of this code that are there
    code = digest_of(function if model is None else partial(function, model))
    store = Store(store.folder, {**store.context, "code": code})
    entries = [store.read(setting) for setting in settings]
    missing = []
    for index, entry in enumerate(entries):
        if entry is None or (retry_failed and entry["error"]):
            missing.append((index, settings[index]))
    # The others, each written as soon as it is there
    results = iter(())
    if missing:
        store.check_disk()  # before the work rather than after it
        results = parallel_map(partial(_result, function), missing, model=model, in_order=False)
    bar = {"total": len(settings), "initial": len(settings) - len(missing), "unit": "setting"}
    with tqdm(**bar, disable=not show_progress()) as progress:
        for index, result in results:
            entries[index] = {"setting": settings[index], "context": store.context, **result}
            store.write(settings[index], entries[index])
            progress.update()
    rows = []
    for entry in entries:
        added = {name: entry[name] for name in ("seconds", "error")}
        rows.append({**entry["setting"], **entry["row"], **added})
    return pd.DataFrame(rows)


def _result(function: Callable, *call: Any) -> tuple[int, dict[str, Any]]:
    """Run one setting; an error is recorded, so that the other settings go on."""
    *model, index, setting = call
    start, row, error = time.perf_counter(), {}, ""
    try:
        row = _as_read(dict(function(*model, **setting)))
        if taken := row.keys() & {*setting, *ADDED}:
            row = {}
            raise ValueError(f"the function returns {sorted(taken)}, names the table has already")
    except Exception as caught:
        error = "".join(traceback.format_exception_only(caught)).strip()
    return index, {"row": row, "error": error, "seconds": time.perf_counter() - start}


def _as_read(value: Any) -> Any:
    """A JSON value as it comes back from a file."""
    return json.loads(json.dumps(value))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

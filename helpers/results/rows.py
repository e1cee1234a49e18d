"""Rows that an earlier run of a chapter recorded: read, and those of one unit made again.

Some tables take minutes: E0 of many interventions, say. Their rows belong to independent units
(fits, prompts, seeds). On the embedded model they lie beside the recorded grids, as CSV with
provenance. They are read only where the model's weights and all that the chapter names are the
same. The first unit is always made again, and where it does not come out as recorded, all are.
``BOOK_FITS`` says the same of rows as of fits: ``anew`` makes all of them, ``record`` records them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked
from helpers.models.load import fingerprint
from helpers.results.records import check_path, provenance, read_record, record
from helpers.settings import SETTINGS

# How far a number may be from the recorded one (nats, if that is its unit). Fits come out a little
# otherwise on another processor.
APART = 0.1


@checked
def rows_or_read(
    model: TransformerBridge,
    path: str | Path,
    units: Sequence[Any] | range,
    run: Callable[[Any], pd.DataFrame],
    *,
    depends_on: Mapping[str, Any],
    apart: float = APART,
    relative: float = 0.0,
) -> pd.DataFrame:
    """The rows of ``run(unit)`` for all units, one below the other, with a column ``unit``.

    Args:
        model: its weights are part of what the rows depend on.
        path: the record (CSV), which ``BOOK_FITS=record`` replaces; where there is none, all units
            are run.
        units: numbers or names, independent of each other; the first is run in any case.
        run: gives a table of numbers and text.
        depends_on: settings and prompts that shape the rows: JSON values, arrays, dataclasses.
            What ``run`` does with them is no part of it: the unit that is run again shows that.
        apart, relative: how far a number of that unit may be from the recorded one, by itself and
            as a share of it, added up.

    Raises:
        TypeError: ``depends_on`` holds something else.
        ValueError: there are no units, or the file was changed after it was recorded.
        OSError: rows are to be recorded where nothing can be written.
    """
    if not units:
        raise ValueError("there are no units to run.")
    key, path = _digest({"weights": fingerprint(model), **depends_on}), Path(path)

    def made(some: Sequence[Any]) -> pd.DataFrame:
        return pd.concat([run(unit).assign(unit=unit) for unit in some], ignore_index=True)

    if SETTINGS.fits == "record":
        path = check_path(path)
        table = made(units)
        record(table, path, provenance(model, units=list(units), depends_on=key))
        return table
    if SETTINGS.fits != "recorded" or not path.exists():
        return made(units)
    table, origin = read_record(path)
    known = origin["settings"]
    if known.get("depends_on") != key or not set(units) <= set(known["units"]):
        print(f"{path.name} has other rows: all are made now.")
        return made(units)
    # Is the first unit's part of the record what comes out now?
    first, rest = made(units[:1]), units[1:]
    if not _alike(first, table[table["unit"] == units[0]], apart, relative):
        print(f"{path.name} does not come out again here, so all of it is made anew.")
        return pd.concat([first, made(rest)], ignore_index=True) if rest else first
    parts = [first, *(table[table["unit"] == unit] for unit in rest)]
    print(
        f"{len(rest)} of {len(units)} parts were read from {path.name}, recorded "
        f"{origin['date']}; the first was made again as a check."
    )
    return pd.concat(parts, ignore_index=True)


def _alike(mine: pd.DataFrame, theirs: pd.DataFrame, apart: float, relative: float) -> bool:
    """Whether two tables have the same rows, and numbers no further apart than that."""
    if list(mine) != list(theirs) or len(mine) != len(theirs):
        return False
    for name in mine:
        a, b = mine[name].to_numpy(), theirs[name].to_numpy()
        if not pd.api.types.is_float_dtype(mine[name]):
            same = (a == b).all()
        else:
            same = np.allclose(a, b.astype(float), relative, apart, equal_nan=True)
        if not same:
            return False
    return True


def _digest(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, default=_json)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _json(value: Any) -> Any:
    """What json asks for where it meets something that it does not know."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"depends_on holds a {type(value).__name__}: give its values.")

"""Recorded tables: the result of a long run as CSV, and beside it its provenance as JSON."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked
from helpers.models.load import device_of, fingerprint

# Those whose version may change a number.
PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "scipy", "moocore")


def provenance(model: TransformerBridge, **settings: Any) -> dict[str, Any]:
    """Model and weights, device, versions, date, and the settings given (JSON values)."""
    return {
        "model": model.cfg.model_name,
        "weights": fingerprint(model),
        "dtype": str(model.W_U.dtype).removeprefix("torch."),
        **machine(device_of(model)),
        "settings": json.loads(json.dumps(settings)),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Name of the device, number of threads, versions of what computes, and the date."""
    name = f"{device.type} ({platform.machine()})"
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = version(package)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        versions |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        versions |= {"cudnn": torch.backends.cudnn.version()}
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


@checked
def check_path(path: str | Path) -> Path:
    """A recorded table's path, once it is sure that a table can be written there.

    Raises:
        ValueError: another suffix than ``.csv``, or it is a folder.
        OSError: its folder cannot be made or written.
    """
    path = Path(path)
    if path.suffix != ".csv" or path.is_dir():
        raise ValueError(f"a recorded table is a file whose name ends in .csv; {path} is not.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"no table can be written to {path.parent}: {error}") from error
    return path


@checked
def record(table: pd.DataFrame, path: str | Path, origin: Mapping[str, Any]) -> None:
    """Write a table, and beside it its provenance with number of rows, wall time and checksum.

    If it is killed, :func:`read_record` gives the pair that was there before, or the new one.

    Args:
        table: its column ``seconds``, if any, is summed up as the wall time, unless ``origin`` has
            ``wall_seconds``.
        path: the CSV file; the provenance has the suffix ``.json``.
        origin: from :func:`provenance`.

    Raises:
        ValueError, OSError: as :func:`check_path`.
    """
    path = check_path(path)
    text = table.to_csv(index=False, lineterminator="\n", na_rep="nan").encode()
    beside = {**origin, "rows": len(table), "sha256": hashlib.sha256(text).hexdigest()}
    if "seconds" in table and "wall_seconds" not in origin:
        beside["wall_seconds"] = round(float(table["seconds"].sum()), 1)
    # From the first replacement on, the new pair is the recorded one.
    _part(path).write_bytes(text)
    json_path = path.with_suffix(".json")
    _part(json_path).write_text(json.dumps(beside, indent=2) + "\n")
    _part(json_path).replace(json_path)
    _part(path).replace(path)


@checked
def read_record(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A recorded table and its provenance.

    Raises:
        FileNotFoundError: either file is missing.
        ValueError: the table does not have the recorded checksum.
    """
    path = Path(path)
    origin = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    for file in (path, _part(path)):  # the second after a kill between the two replacements
        # A checkout may have changed the line ends.
        text = file.read_bytes().replace(b"\r\n", b"\n") if file.exists() else b""
        if hashlib.sha256(text).hexdigest() == origin["sha256"]:
            return pd.read_csv(file, keep_default_na=False, na_values=["nan"]), origin
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: record it again.")
    raise ValueError(
        f"{path} was changed after it was recorded: its checksum is not the one in "
        f"{path.stem}.json. Restore it, or record it again."
    )


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")

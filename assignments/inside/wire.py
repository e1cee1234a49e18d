"""The narrow format in which values leave the sandbox: plain data as JSON, arrays as raw bytes.

A message is its length (4 bytes) and its body. Decoding builds numbers, strings, containers,
tensors and arrays, and nothing else: no class is looked up and no code runs.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import time
from math import prod

import numpy as np
import torch

MAX_BYTES = 2**26  # of a message: logits of 100 prompts over 49,152 tokens
MAX_DEPTH = 8
NAMES = "float64 float32 float16 int64 int32 int16 int8 uint8 bool".split()
DTYPES = {f"torch.{name}": np.dtype(name) for name in NAMES}


class BrokenMessage(Exception):
    """A message is too long, cut off or in no form that is allowed."""


def encode(value: object, depth: int = 0) -> object:
    """A value as JSON data.

    Raises:
        TypeError: a type that cannot leave the sandbox.
    """
    # What JSON has, then arrays by their bytes, then containers.
    if depth > MAX_DEPTH:
        raise TypeError(f"containers are nested more than {MAX_DEPTH} deep")
    if value is None or type(value) is bool:
        return value
    if isinstance(value, str):
        plain = str.__str__(value)  # of a subclass too, such as an enumeration of texts
        return plain.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, (int, float)) and not isinstance(value, np.generic):
        plain = int(value) if isinstance(value, int) else float(value)  # of subclasses too
        return plain if abs(plain) < 2**63 or type(plain) is float else float(plain)
    if isinstance(value, torch.Tensor):
        plain = value.detach().as_subclass(torch.Tensor).cpu()
        plain = plain.float() if plain.dtype == torch.bfloat16 else plain
        fields = {"kind": "tensor", "grad": bool(value.requires_grad), "dtype": str(plain.dtype)}
        return fields | _raw(plain.contiguous().numpy())
    if hasattr(type(value), "__array__"):  # NumPy's, and what becomes one: a column of a table
        array = np.asarray(value)
        return {"kind": "array", "dtype": f"torch.{array.dtype}"} | _raw(array)
    if isinstance(value, dict):
        items = []
        for key, item in value.items():
            items.append([encode(key, depth + 1), encode(item, depth + 1)])
        return {"kind": "dict", "items": items}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items = [encode(item, depth + 1) for item in value]
            return items if kind is list else {"kind": kind.__name__, "items": items}
    raise TypeError(f"a value of type {type(value).__name__} cannot be graded")


def _raw(array: np.ndarray) -> dict:
    if f"torch.{array.dtype}" not in DTYPES or array.nbytes > MAX_BYTES:
        raise TypeError(f"an array of {array.dtype} and {array.nbytes} bytes cannot be graded")
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"shape": list(array.shape), "data": data}


def decode(data: object, depth: int = 0) -> object:
    """The value that ``encode`` wrote.

    Raises:
        BrokenMessage: data that ``encode`` does not write.
    """
    if depth > 2 * MAX_DEPTH:
        raise BrokenMessage("nested too deep")
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if isinstance(data, list):
        return [decode(item, depth + 1) for item in data]
    try:
        kind = data["kind"]
        if kind in ("tensor", "array"):
            return _array(data, kind)
        items = [decode(item, depth + 1) for item in data["items"]]
        if kind == "dict":
            return dict(items)
        return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](items)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BrokenMessage(f"not in the format: {error}") from error


def _array(data: dict, kind: str) -> torch.Tensor | np.ndarray:
    dtype, shape = DTYPES[data["dtype"]], data["shape"]
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape) or len(shape) > 16:
        raise BrokenMessage("a shape is no list of sizes")
    raw = base64.b64decode(data["data"], validate=True)
    if len(raw) != prod(shape) * dtype.itemsize:
        raise BrokenMessage("an array has more or fewer bytes than its shape")
    if dtype == np.bool_ and raw.strip(b"\0\1"):
        raise BrokenMessage("a boolean is neither 0 nor 1")
    array = np.frombuffer(raw, dtype).reshape(shape).copy()
    if kind == "array":
        return array if array.ndim else array[()]
    return torch.from_numpy(array).requires_grad_(
        bool(data.get("grad")) and array.dtype.kind == "f"
    )


def send(channel: socket.socket, body: bytes) -> None:
    """Send one message."""
    channel.sendall(struct.pack(">I", len(body)) + body)


def receive(channel: socket.socket, deadline: float | None = None, poll=None) -> bytes:
    """The body of the next message.

    Args:
        deadline: in seconds of ``time.monotonic``; None waits for ever.
        poll: called about twice a second while waiting; may raise.

    Raises:
        TimeoutError: the deadline has passed.
        EOFError: the other side has closed the channel.
        BrokenMessage: longer than ``MAX_BYTES`` · 2.
    """
    size = struct.unpack(">I", _exactly(channel, 4, deadline, poll))[0]
    if size > 2 * MAX_BYTES:
        raise BrokenMessage(f"a message of {size} bytes")
    return _exactly(channel, size, deadline, poll)


def _exactly(channel: socket.socket, size: int, deadline: float | None, poll) -> bytes:
    body = bytearray()
    channel.settimeout(None if deadline is None else 0.5)
    while len(body) < size:
        try:
            piece = channel.recv(min(size - len(body), 2**20))
        except TimeoutError:
            piece = None
        except OSError as error:
            raise EOFError(str(error)) from error
        if piece == b"":
            raise EOFError("closed")
        body += piece or b""
        if deadline is not None and piece is None and poll is not None:
            poll()
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
    return bytes(body)


def parse(body: bytes) -> dict:
    """The JSON object in a message.

    Raises:
        BrokenMessage: no JSON object.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BrokenMessage("no JSON") from error
    if not isinstance(message, dict):
        raise BrokenMessage("no JSON object")
    return message

"""A function and its arguments as bytes, for those who only pass them on.

A Dask scheduler reads what it hands out. All that it finds is this module, which imports nothing: it shall not need seconds
and memory for torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, repr=False)
class Packed:
    """A pickled function, which the process that calls it turns back (``helpers.runs.workers``).

    Attributes:
        content: the pickle.
        code: checksum of the helpers that it was made with; others would give other results under the same name.
    """

    # With slots it has no weak references, which keeps joblib from scattering it: what is scattered lies on one worker
    # and is lost with it.
    content: bytes
    code: str

    def __call__(self, arguments: bytes) -> Any:
        from helpers.runs.workers import unpack

        return unpack(self, arguments)

    def __repr__(self) -> str:  # Dask makes the name of each call from it
        return "Packed"

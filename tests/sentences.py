"""Whether a call is refused in a sentence of the helpers, not by an error from inside a library."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import helpers

FOLDER = str(Path(helpers.__file__).parent)


def refused(work: Callable, *arguments: object) -> str:
    """What a call says that must be refused."""
    with pytest.raises((TypeError, ValueError)) as found:
        work(*arguments)
    said, where = str(found.value), traceback.extract_tb(found.value.__traceback__)[-1].filename
    assert where.startswith(FOLDER), (arguments, said)
    assert said.endswith("."), said
    return said

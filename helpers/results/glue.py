"""Numbers and figures of a chapter for its sentences and for other pages; its colophon."""

from __future__ import annotations

import re
import sys
import time
from html import escape
from pathlib import Path

import myst_nb
import torch
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.display import HTML
from matplotlib.figure import Figure
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import device_of
from helpers.results.intervals import Interval
from helpers.results.records import provenance
from helpers.settings import SETTINGS

STARTED = time.monotonic()  # chapters import this module in their first cell


class Words(str):
    """Text that a kernel shows without quotes."""

    __repr__ = str.__str__


class Glued(dict):
    """What was glued, by name; ``glued["name:.2f"]`` is how a sentence has it."""

    def __missing__(self, wanted: str) -> Words:
        name, _, spec = wanted.partition(":")
        return Words(format(self[name], spec) if name in self else "…")

    def __getitem__(self, wanted: str) -> object:
        value = super().__getitem__(wanted)
        return Words(value) if isinstance(value, str) else value


GLUED = Glued()


def glue(name: str, value: object, display: bool = False) -> None:
    """Store a number or text under a name, for sentences: ``{glue:text}`name:.2f```.

    NumPy's and PyTorch's numbers are stored as Python's: a page would show their type. Sentences in
    JupyterLab ask the kernel for them by its name ``glued`` (``book/_ext/lab.py``).
    """
    GLUED[name] = value.item() if hasattr(value, "item") else value
    if (shell := get_ipython()) is not None:
        shell.user_ns["glued"] = GLUED
    myst_nb.glue(name, GLUED[name], display=display)


def glue_numbers(**numbers: float) -> None:
    """Store several numbers; see :func:`glue`."""
    for name, number in numbers.items():
        glue(name, number)


def glue_intervals(**intervals: Interval) -> None:
    """Store estimates by name, and the ends of their intervals as ``name_low``, ``name_high``."""
    for name, interval in intervals.items():
        for end, number in zip(("", "_low", "_high"), interval):
            glue(f"{name}{end}", number)


def glue_figure(name: str, figure: Figure, *, alt: str) -> None:
    """Store a figure, for any page to show with ``{glue:} name`` and ``:doc:``.

    As HTML with the image in it: myst_nb would drop the text, and its file may be missing on
    another page.
    """
    glue(name, picture(figure, alt))


def picture(figure: Figure, alt: str) -> HTML:
    """A figure as an ``<img>`` with its text, which says in words what it shows.

    Raises:
        ValueError: the text is blank.
    """
    if not alt.strip():
        raise ValueError("a figure needs a text that says what it shows.")
    data = print_figure(figure, "png", base64=True)
    return HTML(f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">')


def peak_memory() -> float | None:
    """Peak resident memory of this process in GB (10⁹ bytes); None on Windows."""
    status = Path("/proc/self/status")
    # Linux' getrusage would count the parent's memory at the time of the fork, too.
    if status.is_file() and (line := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(line[1]) * 1024 / 1e9
    try:
        from resource import RUSAGE_SELF, getrusage
    except ModuleNotFoundError:
        return None
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def colophon(model: TransformerBridge) -> HTML:
    """A chapter's last cell: model, profile, device, versions, time, memory and date of the run."""
    run, memory, seconds = provenance(model), peak_memory(), time.monotonic() - STARTED
    used = [f"{seconds:.0f} seconds"]
    if memory is not None:
        used.append(f"peak memory {memory:.1f} GB")
    if device_of(model).type == "cuda":
        used.append(f"of the GPU {torch.cuda.max_memory_allocated(device_of(model)) / 1e9:.1f} GB")
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    text = (
        f"This run: model <code>{escape(SETTINGS.model)}</code> (fingerprint {run['weights']}, "
        f"{run['dtype']}), profile {SETTINGS.profile}, seed {SETTINGS.seed}, "
        f"{escape(run['device'])}, {run['threads']} threads; {versions}; {', '.join(used)} "
        f"on {run['date']}. On another model: <code>BOOK_MODEL=gpt2 make book</code>, or any name "
        "of the page on models."
    )
    # The metadata is for the page on speed.
    numbers = {"run": {"seconds": seconds, "peak_gb": memory}}
    return HTML(f"<p class='colophon'>{text}</p>", metadata=numbers)

"""What a chapter hands to other pages of the book."""

from __future__ import annotations

import re
import sys
import time
from html import escape
from pathlib import Path

import myst_nb
import torch
from IPython.core.pylabtools import print_figure
from IPython.display import HTML
from matplotlib.figure import Figure
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import device_of
from helpers.results.intervals import Interval
from helpers.results.records import provenance
from helpers.settings import SETTINGS

STARTED = time.monotonic()  # chapters import this module in their first cell


def glue_figure(key: str, figure: Figure, *, alt: str) -> None:
    """Keep a figure under a name, for any page to show with ``{glue:} key`` and ``:doc:``.

    A figure glued as it is would come out on the other page without a text for those who do not see it, and its file may
    be missing there; as HTML with the picture inside it carries both along.

    Args:
        key: the name.
        figure: what to show.
        alt: what the figure shows, in words.

    Raises:
        ValueError: the text is empty.
    """
    if not alt.strip():
        raise ValueError(f"figure {key!r} needs a text that says what it shows.")
    glue(key, picture(figure, alt))


def picture(figure: Figure, alt: str) -> HTML:
    """A figure as an image in the page, with its text."""
    data = print_figure(figure, "png", base64=True)
    return HTML(f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">')


def glue(name: str, value: object, display: bool = False) -> None:
    """Keep a number or text under a name, for the page's sentences: ``{glue:text}`name:.2f```.

    As myst_nb's own, but a number of NumPy or PyTorch is kept as a plain one: of theirs a page would show the type.
    """
    myst_nb.glue(name, value.item() if hasattr(value, "item") else value, display=display)


def glue_numbers(**numbers: float) -> None:
    """Keep several numbers under their names; see :func:`glue`."""
    for name, number in numbers.items():
        glue(name, number)


def glue_intervals(**intervals: Interval) -> None:
    """Keep estimates with their intervals: of ``name`` the value, and as ``name_low`` and ``name_high`` its ends."""
    for name, interval in intervals.items():
        for end, number in zip(("", "_low", "_high"), interval):
            glue(f"{name}{end}", number)


def peak_memory() -> float | None:
    """The most main memory that this process has held so far, in GB (10⁹ bytes); None where the system does not say."""
    status = Path("/proc/self/status")
    # On Linux not getrusage: its number counts what the process held that started this one.
    if status.is_file() and (line := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(line[1]) * 1024 / 1e9
    try:
        from resource import RUSAGE_SELF, getrusage
    except ModuleNotFoundError:  # Windows
        return None
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def colophon(model: TransformerBridge) -> HTML:
    """What this run of a chapter was made with: model, profile, device, versions, time, memory and date; its last cell."""
    made, memory = provenance(model), peak_memory()
    peaks = [] if memory is None else [f"peak memory {memory:.1f} GB"]
    if device_of(model).type == "cuda":
        peaks.append(f"of the GPU {torch.cuda.max_memory_allocated(device_of(model)) / 1e9:.1f} GB")
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    seconds = time.monotonic() - STARTED
    return HTML(
        f"<p class='colophon'>This run: model <code>{escape(SETTINGS.model)}</code> (weights {made['weights']}, {made['dtype']}), "
        f"profile {SETTINGS.profile}, seed {SETTINGS.seed}, {escape(made['device'])}, {made['threads']} threads; {versions}; "
        f"{', '.join([f'{seconds:.0f} seconds', *peaks])} on {made['date']}. On another model: "
        "<code>BOOK_MODEL=gpt2 make book</code>, or any name of the page on models.</p>",
        metadata={"run": {"seconds": seconds, "peak_gb": memory}},  # for the page on speed
    )

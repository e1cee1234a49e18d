"""Pictures behind controls in a published page, where no kernel runs.

The page holds all pictures, one under the other; ``slider.js``, inlined, hides all but the chosen
one and shows the controls. Without JavaScript every picture can be read.
"""

from __future__ import annotations

import itertools
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FIGURE = """<figure class="slider" id="{key}-figure">
{controls}
{pictures}
<figcaption>{caption}</figcaption>
<details hidden><summary>How to use this</summary><p>{how}</p></details>
</figure>
{script}"""
RANGE = """<p hidden><label for="{id}">{label}:</label> <input type="range" id="{id}" min="0"
max="{last}" step="1" value="{start}" data-values="{values}"> <output for="{id}"></output></p>"""
SELECT = """<p hidden><label for="{id}">{label}:</label> <select id="{id}">{options}</select></p>"""
DRAG = (
    "Drag the slider, or go to it with the Tab key and press the arrow keys; "
    "Home and End go to its ends."
)
CHOOSE = "Choose from the list, or go to it with the Tab key and press the arrow keys."


def slider(
    key: str,
    label: str | tuple[str, ...],
    frames: Mapping[str | tuple[str, ...], Figure],
    alts: Sequence[str],
    *,
    caption: str,
    how: str = "",
    start: int | tuple[int, ...] = 0,
) -> HTML:
    """Pictures behind a labelled slider, or behind several. Closes the figures.

    Args:
        key: id of the slider, unique in its page.
        label: what the slider changes; of several sliders a tuple.
        frames: the slider's value, as shown -> the picture for it. Of several sliders a tuple of
            their values, every combination, the first slider's value outermost.
        alts: what each picture shows, in words.
        caption: under the picture.
        how: what to look for, added to the folded line on how to use the control.
        start: index of the first picture shown; of several sliders a tuple.

    Raises:
        ValueError: a picture without a text, or a combination missing or out of order.
    """
    if isinstance(label, str):
        control = slider_control(key, label, list(frames), start)
        return _figure(key, [control], frames, alts, caption, f"{DRAG} {how}")
    axes = [list(dict.fromkeys(values)) for values in zip(*frames)]
    if list(frames) != list(itertools.product(*axes)):
        raise ValueError(
            "several sliders need a frame for every combination of their values, "
            "the first slider's value outermost."
        )
    controls = []
    for i, (name, values) in enumerate(zip(label, axes, strict=True)):
        controls.append(slider_control(f"{key}-{i}", name, values, start[i] if start else 0))
    return _figure(key, controls, frames, alts, caption, f"{DRAG} {how}")


def choice(
    key: str,
    label: str,
    frames: Mapping[str, Figure],
    alts: Sequence[str],
    *,
    caption: str,
    how: str = "",
) -> HTML:
    """As :func:`slider`, with a list to choose from, for values that are names."""
    control = list_control(key, label, list(frames))
    return _figure(key, [control], frames, alts, caption, f"{CHOOSE} {how}")


def slider_control(id: str, label: str, values: Sequence[str], start: int = 0) -> str:
    """An ``<input type=range>`` with its label, hidden until a script shows it."""
    texts, last = escape(json.dumps(values, ensure_ascii=False)), len(values) - 1
    return RANGE.format(id=id, label=escape(label), last=last, start=start, values=texts)


def list_control(id: str, label: str, values: Sequence[str]) -> str:
    """A ``<select>`` with its label, hidden until a script shows it."""
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return SELECT.format(id=id, label=escape(label), options=options)


def inline_script(name: str, call: str) -> str:
    """A JavaScript file of this package as a ``<script>`` element that ends with a call."""
    source = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return f"<script>{{\n{source}{call};\n}}</script>"  # in a block: a page may hold it twice


def _figure(
    key: str,
    controls: Sequence[str],
    frames: Mapping,
    alts: Sequence[str],
    caption: str,
    how: str,
) -> HTML:
    pictures = []
    for figure, alt in zip(frames.values(), alts, strict=True):
        if not alt.strip():
            raise ValueError(f"{key}: every picture needs a text that says what it shows.")
        # WebP weighs a third of PNG. Not cropped, so that all pictures are of one size and
        # the page does not move with the control.
        FigureCanvasAgg(figure).print_webp(data := BytesIO())  # savefig would draw it twice
        coded = b64encode(data.getvalue()).decode("ascii")
        pictures.append(f'<img src="data:image/webp;base64,{coded}" alt="{escape(alt)}">')
        plt.close(figure)  # otherwise the inline backend shows it once more
    html = FIGURE.format(
        key=key,
        controls="\n".join(controls),
        pictures="\n".join(pictures),
        caption=escape(caption),
        how=escape(how.strip()),
        script=inline_script("slider.js", f'slider("{key}")'),
    )
    return HTML(html)

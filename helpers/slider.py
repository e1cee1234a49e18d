"""Sliders over pictures that were drawn beforehand: they move in a published page, where no kernel runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
from IPython.core.pylabtools import print_figure
from IPython.display import HTML
from matplotlib.figure import Figure

# The pictures are all in the page, one under the other; the script leaves the chosen one and shows the slider. Where no
# script runs there is no slider, and every picture can be read.
TEMPLATE = """<figure class="slider" id="{key}-figure">
<p hidden><label for="{key}">{label}:</label> <input type="range" id="{key}" min="0" max="{last}" step="1" value="{start}">
<output for="{key}"></output></p>
{pictures}
<figcaption>{caption}</figcaption>
</figure>
<script>(() => {{
const input = document.getElementById("{key}"), shown = document.querySelector("output[for='{key}']");
const pictures = [...document.querySelectorAll("#{key}-figure img")];
const show = () => {{
  const chosen = pictures[input.value];
  pictures.forEach(picture => {{ picture.hidden = picture !== chosen; }});
  shown.textContent = chosen.dataset.value;
  input.setAttribute("aria-valuetext", chosen.dataset.value);
}};
input.addEventListener("input", show);
input.parentElement.hidden = false;
show();
}})();</script>"""


def slider(key: str, label: str, frames: Mapping[str, Figure], alts: Sequence[str], *, caption: str, start: int = 0) -> HTML:
    """Pictures behind a labelled slider; without JavaScript all of them one after the other. Closes the figures.

    Args:
        key: a name of its own in the page: letters, digits and hyphens, a letter first.
        label: what the slider changes.
        frames: value of the slider, as shown -> the picture for it.
        alts: what each picture shows, in words.
        caption: under the picture.
        start: which frame comes first.

    Raises:
        ValueError: no frames, a number of texts that does not match, an empty text, a start that is not there, or a key
            that cannot name an element.
    """
    if not frames or len(alts) != len(frames) or not all(alt.strip() for alt in alts):
        raise ValueError(f"{len(frames)} frames and {len(alts)} texts; every frame needs a text that says what it shows.")
    if not 0 <= start < len(frames):
        raise ValueError(f"start = {start}, and frames run from 0 to {len(frames) - 1}.")
    if not (key.isascii() and key[:1].isalpha() and key.replace("-", "").isalnum()):
        raise ValueError(f"key {key!r} must be letters, digits and hyphens, a letter first.")
    # WebP: all frames travel in the page, and as PNG they would weigh three times as much.
    pictures = "\n".join(
        f'<img src="data:image/webp;base64,{print_figure(figure, "webp", base64=True)}" alt="{escape(alt)}" data-value="{escape(value)}">'
        for (value, figure), alt in zip(frames.items(), alts)
    )
    for figure in frames.values():
        plt.close(figure)  # else the inline backend shows each once more
    words = {"label": escape(label), "caption": escape(caption)}
    return HTML(TEMPLATE.format(key=key, last=len(frames) - 1, start=start, pictures=pictures, **words))


# As above, with two sliders: the pictures come row by row, first slider's value by first slider's value.
TWO = """<figure class="slider" id="{key}-figure">
{controls}
{pictures}
<figcaption>{caption}</figcaption>
</figure>
<script>(() => {{
const inputs = [document.getElementById("{key}-0"), document.getElementById("{key}-1")];
const pictures = [...document.querySelectorAll("#{key}-figure img")];
const show = () => {{
  const [row, column] = inputs.map(input => Number(input.value));
  pictures.forEach((picture, i) => {{ picture.hidden = i !== row * (Number(inputs[1].max) + 1) + column; }});
  inputs.forEach(input => {{
    const value = input.dataset.values.split("|")[input.value];
    document.querySelector(`output[for='${{input.id}}']`).textContent = value;
    input.setAttribute("aria-valuetext", value);
  }});
}};
inputs.forEach(input => {{ input.addEventListener("input", show); input.parentElement.hidden = false; }});
show();
}})();</script>"""
CONTROL = """<p hidden><label for="{key}">{label}:</label> <input type="range" id="{key}" min="0" max="{last}" step="1" value="{start}"
data-values="{values}"> <output for="{key}"></output></p>"""


def two_sliders(
    key: str,
    labels: tuple[str, str],
    frames: Mapping[tuple[str, str], Figure],
    alts: Sequence[str],
    *,
    caption: str,
    start: tuple[int, int] = (0, 0),
) -> HTML:
    """Pictures behind two sliders, one for each combination; without JavaScript all of them. Closes the figures.

    Args:
        key: a name of its own in the page: letters, digits and hyphens, a letter first.
        labels: what each slider changes.
        frames: values of both sliders, as shown -> the picture; every combination, the first slider's value outermost.
        alts: what each picture shows, in words.
        caption: under the picture.
        start: which values come first.

    Raises:
        ValueError: as :func:`slider`; combinations that are missing or in another order; or a value with ``|`` in it.
    """
    rows, columns = (list(dict.fromkeys(values[i] for values in frames)) for i in (0, 1))
    if list(frames) != [(row, column) for row in rows for column in columns]:
        raise ValueError("two sliders need a frame for every combination of their values, the first slider's value outermost.")
    if any("|" in value for value in (*rows, *columns)):
        raise ValueError("a value of a slider must not have '|' in it.")
    if frames and not (0 <= start[0] < len(rows) and 0 <= start[1] < len(columns)):
        raise ValueError(f"start = {start}, and values run from (0, 0) to {(len(rows) - 1, len(columns) - 1)}.")
    # The one slider's own checks and pictures serve here too.
    single = slider(key, labels[0], {" ".join(values): figure for values, figure in frames.items()}, alts, caption=caption).data
    pictures = "\n".join(line for line in single.splitlines() if line.startswith("<img "))
    controls = "\n".join(
        CONTROL.format(key=f"{key}-{i}", label=escape(labels[i]), last=len(values) - 1, start=start[i], values=escape("|".join(values)))
        for i, values in enumerate((rows, columns))
    )
    return HTML(TWO.format(key=key, controls=controls, pictures=pictures, caption=escape(caption)))

"""A slider over pictures that were drawn beforehand: it moves in a published page, where no kernel runs."""

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

"""Pictures that were drawn beforehand, behind a control that works in a published page, where no kernel runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
from IPython.core.pylabtools import print_figure
from IPython.display import HTML
from matplotlib.figure import Figure

# The pictures are all in the page, one under the other; the script leaves the chosen one and shows the controls. Where no
# script runs there are no controls, and every picture can be read.
TEMPLATE = """<figure class="slider" id="{key}-figure">
{controls}
{pictures}
<figcaption>{caption}</figcaption>
<details hidden><summary>How to use this</summary><p>{how}</p></details>
</figure>
<script>({script})("{key}");</script>"""
RANGE = """<p hidden><label for="{id}">{label}:</label> <input type="range" id="{id}" min="0" max="{last}" step="1" value="{start}"
data-values="{values}"> <output for="{id}"></output></p>"""
SELECT = '<p hidden><label for="{id}">{label}:</label> <select id="{id}">{options}</select></p>'
# With several controls the pictures come row by row: the first control's value is the outermost.
SCRIPT = """key => {
const figure = document.getElementById(`${key}-figure`);
const controls = [...figure.querySelectorAll("input, select")], pictures = [...figure.querySelectorAll("img")];
const values = controls.map(control => control.dataset.values?.split("|") ?? [...control.options].map(option => option.text));
const show = () => {
  const chosen = controls.reduce((sum, control, i) => sum * values[i].length + Number(control.value), 0);
  pictures.forEach((picture, i) => { picture.hidden = i !== chosen; });
  controls.forEach((control, i) => {
    if (control.type !== "range") return;
    figure.querySelector(`output[for='${control.id}']`).textContent = values[i][control.value];
    control.setAttribute("aria-valuetext", values[i][control.value]);
  });
};
controls.forEach(control => { control.addEventListener("input", show); control.parentElement.hidden = false; });
figure.querySelector("details").hidden = false;
show();
}"""
WITH_RANGE = "Drag the slider, or go to it with the Tab key and press the arrow keys; Home and End go to its ends."
WITH_SELECT = "Choose from the list, or go to it with the Tab key and press the arrow keys."


def slider(
    key: str,
    label: str,
    frames: Mapping[str, Figure],
    alts: Sequence[str],
    *,
    caption: str,
    how: str = "",
    start: int = 0,
) -> HTML:
    """Pictures behind a labelled slider; without JavaScript all of them one after the other. Closes the figures.

    Args:
        key: a name of its own in the page: letters, digits and hyphens, a letter first.
        label: what the slider changes.
        frames: value of the slider, as shown -> the picture for it.
        alts: what each picture shows, in words.
        caption: under the picture.
        how: what to look for, added to the folded line on how to use the control.
        start: which frame comes first.

    Raises:
        ValueError: no frames, a number of texts that does not match, an empty text, a value with ``|`` in it, a start that
            is not there, or a key that cannot name an element.
    """
    pictures = _pictures(key, frames, alts, [start], [len(frames)])
    return _figure(
        key, [_range(key, label, list(frames), start)], pictures, caption, f"{WITH_RANGE} {how}"
    )


def choice(
    key: str,
    label: str,
    frames: Mapping[str, Figure],
    alts: Sequence[str],
    *,
    caption: str,
    how: str = "",
    start: int = 0,
) -> HTML:
    """As :func:`slider`, with a list to choose from, for values that are names.

    Raises:
        ValueError: as :func:`slider`.
    """
    pictures = _pictures(key, frames, alts, [start], [len(frames)])
    options = "".join(
        f'<option value="{i}"{" selected" * (i == start)}>{escape(value)}</option>'
        for i, value in enumerate(frames)
    )
    control = SELECT.format(id=key, label=escape(label), options=options)
    return _figure(key, [control], pictures, caption, f"{WITH_SELECT} {how}")


def two_sliders(
    key: str,
    labels: tuple[str, str],
    frames: Mapping[tuple[str, str], Figure],
    alts: Sequence[str],
    *,
    caption: str,
    how: str = "",
    start: tuple[int, int] = (0, 0),
) -> HTML:
    """Pictures behind two sliders, one for each combination; without JavaScript all of them. Closes the figures.

    Args:
        key: a name of its own in the page: letters, digits and hyphens, a letter first.
        labels: what each slider changes.
        frames: values of both sliders, as shown -> the picture; every combination, the first slider's value outermost.
        alts: what each picture shows, in words.
        caption: under the picture.
        how: what to look for, added to the folded line on how to use the controls.
        start: which values come first.

    Raises:
        ValueError: as :func:`slider`; or combinations that are missing or in another order.
    """
    both = [list(dict.fromkeys(values[i] for values in frames)) for i in (0, 1)]
    if list(frames) != [(row, column) for row in both[0] for column in both[1]]:
        raise ValueError(
            "two sliders need a frame for every combination of their values, the first slider's value outermost."
        )
    pictures = _pictures(key, frames, alts, start, [len(values) for values in both])
    controls = [_range(f"{key}-{i}", labels[i], values, start[i]) for i, values in enumerate(both)]
    return _figure(key, controls, pictures, caption, f"{WITH_RANGE} {how}")


def check_key(key: str) -> None:
    """Whether a key can name an element of a page.

    Raises:
        ValueError: it is not made of letters, digits and hyphens, a letter first.
    """
    if not (key.isascii() and key[:1].isalpha() and key.replace("-", "").isalnum()):
        raise ValueError(f"key {key!r} must be letters, digits and hyphens, a letter first.")


def _pictures(
    key: str, frames: Mapping, alts: Sequence[str], start: Sequence[int], counts: Sequence[int]
) -> str:
    """The pictures as HTML, once all that was given is right."""
    if not frames or len(alts) != len(frames) or not all(alt.strip() for alt in alts):
        raise ValueError(
            f"{len(frames)} frames and {len(alts)} texts; every frame needs a text that says what it shows."
        )
    if not all(0 <= first < count for first, count in zip(start, counts)):
        raise ValueError(
            f"start = {list(start)}, and values run from 0 to {[count - 1 for count in counts]}."
        )
    check_key(key)
    # WebP: all frames travel in the page, and as PNG they would weigh three times as much. Not cut to what is drawn (None),
    # so that all are of one size and the page does not move with the control.
    pictures = "\n".join(
        f'<img src="data:image/webp;base64,{print_figure(figure, "webp", bbox_inches=None, base64=True)}" alt="{escape(alt)}">'
        for figure, alt in zip(frames.values(), alts)
    )
    for figure in frames.values():
        plt.close(figure)  # else the inline backend shows each once more
    return pictures


def _range(id: str, label: str, values: Sequence[str], start: int) -> str:
    if any("|" in value for value in values):
        raise ValueError("a value of a slider must not have '|' in it.")
    return RANGE.format(
        id=id,
        label=escape(label),
        last=len(values) - 1,
        start=start,
        values=escape("|".join(values)),
    )


def _figure(key: str, controls: Iterable[str], pictures: str, caption: str, how: str) -> HTML:
    words = {"caption": escape(caption), "how": escape(how.strip())}
    return HTML(
        TEMPLATE.format(
            key=key, controls="\n".join(controls), pictures=pictures, script=SCRIPT, **words
        )
    )

"""What both benches use: labelled controls, messages, a table of tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd
from IPython.display import HTML, display
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.figures.answers import likeliest
from helpers.models.checks import checked


def labelled(kind: type[widgets.Widget], label: str, value: Any, **options: Any) -> widgets.Widget:
    """A control with its label, as wide as its bench."""
    style, layout = {"description_width": "8rem"}, {"width": "min(100%, 42rem)"}
    return kind(value=value, description=label, style=style, layout=layout, **options)


def examples(
    values: Mapping[str, Sequence[str]], controls: Sequence[widgets.Widget]
) -> widgets.Dropdown:
    """A list of examples by name, each with a value a control; a choice fills them in."""
    chosen = labelled(widgets.Dropdown, "Example", next(iter(values)), options=list(values))

    def fill(change: dict) -> None:
        for control, value in zip(controls, values[change["new"]]):
            control.value = value

    chosen.observe(fill, "value")
    return chosen


def on_press(name: str, run: Callable, **controls: widgets.Widget) -> None:
    """Show controls and a button, which alone calls ``run`` with their values.

    ``interact_manual`` calls it as well whenever a line of text is left or filled in.
    """
    form = widgets.interactive(run, {"manual": True, "manual_name": name}, **controls)
    for control in form.kwargs_widgets:
        if isinstance(control, widgets.Text):
            control.unobserve(form.update, "value")
    display(form)


def say(text: str, role: str = "status") -> None:
    """Display a line that screen readers announce; an ``alert`` at once."""
    display(HTML(f"<p role='{role}'>{escape(text)}</p>"))


# Hooks are on the model itself, and JupyterLab may run two callbacks in threads of their own.
ALONE = threading.RLock()


@contextmanager
def reported() -> Iterator[None]:
    """Alone with the model; say what is wrong with the input, without a traceback."""
    try:
        with ALONE:
            yield
    except ValueError as error:
        say(f"⚠ {error}", "alert")


@checked
def typed(text: str, what: str) -> str:
    """A text that was typed.

    Raises:
        ValueError: it is blank.
    """
    if not text.strip():
        raise ValueError(f"the {what} is empty: type one.")
    return text


def as_token(word: str) -> str:
    """A word as most tokenizers have it, with a space in front."""
    return " " + typed(word, "answer").removeprefix(" ")


@checked
def top_tokens(model: TransformerBridge, logits: Float[Tensor, " d_vocab"]) -> pd.DataFrame:
    """The eight likeliest next tokens; a line break is shown as ↵."""
    (likely,) = likeliest(model, logits.softmax(-1)[None], 8)
    shares = [f"{value:.1%}" for _, value in likely]
    texts = [repr(text).replace("\\n", "↵") for text, _ in likely]
    return pd.DataFrame({"next token": texts, "probability": shares}, index=range(1, 9))

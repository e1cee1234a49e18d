"""Live controls for a notebook with a kernel: what both benches share. A published page has no kernel and shows none of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html import escape

import ipywidgets as widgets
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.figures.plots import show_token
from helpers.models.run import last_logits
from helpers.models.tokens import token_strings

WIDE = {
    "width": "min(100%, 42rem)"
}  # not a widget: a page that only imports this has none to carry
LABEL = {"description_width": "8rem"}

# Hooks are put on the model itself: whoever uses it has to be alone with it, the thread of a fit as well.
_ALONE = threading.RLock()
PATIENCE = 5.0  # seconds; longer, and the kernel would no longer hear a Stop button


class Panel:
    """A column of controls, a line that says what happens, and room for what comes out of it.

    Attributes:
        box: what a cell displays.
    """

    def __init__(self) -> None:
        self.status = widgets.HTML()
        self.box = widgets.VBox()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)

    def say(self, text: str, *, error: bool = False) -> None:
        """Show a line in the panel; errors are announced to screen readers at once."""
        role, mark = ("alert", "⚠ ") if error else ("status", "")
        self.status.value = f"<p role='{role}'>{mark}{escape(text)}</p>"

    @contextmanager
    def using_model(self) -> Iterator[None]:
        """Alone with the model, or an error that says what to wait for.

        Raises:
            ValueError: a fit is under way.
        """
        if not _ALONE.acquire(timeout=PATIENCE):
            raise ValueError("the model is busy with a fit: wait for its end, or press Stop.")
        try:
            yield
        finally:
            _ALONE.release()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Errors of what is done inside go to the panel, not to a traceback."""
        try:
            yield
        except Exception as error:
            self.say(
                f"{type(error).__name__}: {error}"
                if not isinstance(error, ValueError)
                else str(error),
                error=True,
            )


def as_token(text: str) -> str:
    """An answer as most tokenizers want it: with a space in front, unless one was typed."""
    return text if text.startswith(" ") else " " + text


def picture(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def top_tokens(model: TransformerBridge, logits: Float[Tensor, " d_vocab"], n: int = 8) -> str:
    """A table of the likeliest next tokens, as HTML."""
    probabilities, tokens = logits.softmax(-1).topk(n)
    rows = "".join(
        f"<tr><td><code>{escape(show_token(text))}</code></td><td>{value:.1%}</td></tr>"
        for text, value in zip(token_strings(model, tokens), probabilities.tolist())
    )
    return f"<table><thead><tr><th scope='col'>next token</th><th scope='col'>probability</th></tr></thead><tbody>{rows}</tbody></table>"


@torch.no_grad()
def continuation(
    model: TransformerBridge,
    tokens: Int[Tensor, "1 pos"],
    n_new: int,
    steered: Callable[[int], AbstractContextManager],
) -> str:
    """The likeliest continuation of one prompt, a token at a time, with whatever ``steered(length)`` puts on the model.

    Args:
        model: writes the text.
        tokens: the prompt.
        n_new: how many tokens at most; the text ends early with the model's end-of-sequence token.
        steered: length of the text so far, in tokens -> a context manager that puts the intervention on the model.
    """
    start = tokens.shape[1]
    for _ in range(n_new):
        with steered(tokens.shape[1]):
            best = last_logits(model, tokens).argmax(-1, keepdim=True)
        if best.item() == model.tokenizer.eos_token_id:
            break
        tokens = torch.cat([tokens, best], dim=1)
    return model.tokenizer.decode(tokens[0, start:])

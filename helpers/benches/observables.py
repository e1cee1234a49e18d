"""The observable bench: two lists of tokens become a question about the output, and every head's answer to it can be read."""

from __future__ import annotations

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from transformer_lens.model_bridge import TransformerBridge

from helpers.benches.panel import LABEL, WIDE, Panel, as_token, picture, top_tokens
from helpers.figures.plots import head_map
from helpers.models.run import last_logits, read_activations
from helpers.models.tokens import token_strings, tokenize
from helpers.observable_propagation.edits import edited
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.pull_back import NormWeights

EXAMPLE = ("So, Jennifer really is a great friend, isn't", "she", "he")


class ObservableBench(Panel):
    """Controls for one observable: which heads read it most, and what a step along a head's feature vector does.

    Args:
        model: see ``helpers.models.load.load_model``.
    """

    def __init__(self, model: TransformerBridge) -> None:
        super().__init__()
        self.model = model
        self.norms = NormWeights()
        self.observable: Observable | None = None
        text, plus, minus = EXAMPLE
        self.plus = widgets.Text(plus, description="Tokens, weight +", style=LABEL, layout=WIDE)
        self.minus = widgets.Text(minus, description="Tokens, weight −", style=LABEL, layout=WIDE)
        self.start = widgets.Button(description="Read the heads", button_style="primary")
        self.map, self.caption = (
            widgets.Image(format="png", layout=widgets.Layout(max_width="100%")),
            widgets.HTML(),
        )
        self.head = widgets.Dropdown(options=[], description="Head", disabled=True, style=LABEL)
        self.prompt = widgets.Textarea(
            text, description="Prompt", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.position = widgets.Dropdown(
            options=[], description="Token", disabled=True, style=LABEL
        )
        self.strength = widgets.FloatSlider(
            0.0,
            min=-2,
            max=2,
            step=0.1,
            description="Step / ‖x‖",
            disabled=True,
            style=LABEL,
            layout=WIDE,
        )
        self.now = widgets.HTML()
        self.start.on_click(lambda _: self.begin())
        self.prompt.observe(lambda _: self._tokens(), names="value")
        for control in (self.head, self.position, self.strength):
            control.observe(lambda _: self.show(), names="value")
        self.box.children = [self.plus, self.minus, self.start, self.status, self.map, self.caption, self.head, self.prompt,
                             self.position, self.strength, self.now]  # fmt: skip

    def begin(self) -> None:
        """Make the observable and every head's feature vector for it, and draw their lengths."""
        with self.reporting():
            self.observable = self._observable()
            self.features = head_features(
                self.model, self.observable.vector(self.model), norms=self.norms
            )  # [layer head d_model]
            lengths = self.features.norm(dim=-1)
            figure = Figure(figsize=(7, 5), layout="constrained")
            head_map(lengths, label="length of the feature vector", ax=figure.subplots())
            self.map.value = picture(figure)
            order = [
                divmod(int(index), lengths.shape[1])
                for index in lengths.flatten().argsort(descending=True)[:20]
            ]
            leaders = [
                f"{layer}.{head} ({lengths[layer, head].item():.2f})" for layer, head in order
            ]
            self.caption.value = f"<p>Lengths of all heads' feature vectors; heads from left to right. Longest: {', '.join(leaders[:5])}.</p>"
            self.head.options = list(zip(leaders, order))
            self.head.value = order[0]
            self.say(
                f"{self.observable}: feature vectors of {lengths.numel()} heads, with the norms' weights."
            )
            self._tokens()

    def _observable(self) -> Observable:
        """Each list's tokens share its weight, so that lists of different lengths weigh the same."""
        weights: dict[str, float] = {}
        for box, sign in ((self.plus, 1), (self.minus, -1)):
            words = [as_token(word) for word in box.value.split()]
            if sign > 0 and not words:
                raise ValueError("the first list is empty: type at least one word.")
            for word in words:
                weights[word] = weights.get(word, 0.0) + sign / len(words)
        return Observable.of(self.model, weights)

    def _tokens(self) -> None:
        """The prompt's tokens to choose from."""
        with self.reporting():
            self.tokens = tokenize(self.model, [self.prompt.value])
            names = [
                f"{i}: {text!r}" for i, text in enumerate(token_strings(self.model, self.tokens[0]))
            ]
            self.position.options = list(zip(names, range(len(names))))
            self.position.value = len(names) - 1
            for control in (self.head, self.position, self.strength):
                control.disabled = self.observable is None
            self.show()

    @torch.no_grad()
    def show(self) -> None:
        """The observable and the likeliest tokens after a step along the chosen head's feature vector at the chosen token."""
        if self.observable is None or self.head.value is None or self.position.value is None:
            return
        with self.reporting():
            (layer, head), position = self.head.value, self.position.value
            name = f"blocks.{layer}.hook_resid_pre"
            with self.using_model():
                kept, plain = read_activations(self.model, self.tokens, [name])
                direction = self.features[layer, head] / self.features[layer, head].norm()
                step = self.strength.value * kept[name][0, position].norm() * direction
                with edited(self.model, layer, position, lambda x: x + step):
                    logits = last_logits(self.model, self.tokens)
            before, after = (self.observable.measure(each).item() for each in (plain, logits))
            self.now.value = (
                f"<p role='status'>Observable {before:+.2f} → {after:+.2f} nats, with {self.strength.value:+.1f} times the activation's "
                f"length added at token {position} before layer {layer}.</p>{top_tokens(self.model, logits[0])}"
            )

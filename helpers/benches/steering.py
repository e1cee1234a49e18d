"""The steering bench: a prompt and two answers of one's own, fitted, looked at, and steered while one watches."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from html import escape

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import (
    ActivScalar,
    Intervention,
    SteerVec,
    steered_logits,
)
from helpers.activation_scaling.objective import Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.benches.panel import LABEL, WIDE, Panel, as_token, continuation, picture, top_tokens
from helpers.figures.plots import heat_map
from helpers.models.tokens import token_strings
from helpers.prompts.prompts import Prompts

METHODS = {
    "ActivScalar": (ActivScalar, 1e-2),
    "SteerVec": (SteerVec, 1e-3),
}  # with a learning rate that one prompt needs
EXAMPLE = (
    "The capital of Poland is London. Q: What is the capital of Poland? A:",
    "Warsaw",
    "London",
)


class Stopped(Exception):
    """The reader pressed Stop."""


def on_longer(intervention: Intervention, n_pos: int) -> Intervention:
    """The same parameters at the same positions of a longer text, so that the prompt stays steered while the model writes on."""
    longer = type(intervention)(replace(intervention.points, n_pos=n_pos)).to(
        intervention.vec().device
    )
    longer.load_state_dict(intervention.state_dict())
    return longer


class SteeringBench(Panel):
    """Controls for one prompt: fit scalars or vectors, see where they are, move β, let the model write.

    Args:
        model: see ``helpers.models.load.load_model``.
    """

    def __init__(self, model: TransformerBridge) -> None:
        super().__init__()
        self.model = model
        self.fitted: tuple[Prompts, Intervention] | None = None
        self.thread: threading.Thread | None = None
        self._stop = threading.Event()
        text, right, wrong = EXAMPLE
        self.prompt = widgets.Textarea(text, description="Prompt", layout=WIDE, style=LABEL)
        self.right = widgets.Text(right, description="Answer at β = 1", style=LABEL)
        self.wrong = widgets.Text(wrong, description="Answer at β = −1", style=LABEL)
        self.method = widgets.Dropdown(options=list(METHODS), description="Method", style=LABEL)
        self.sites = widgets.SelectMultiple(
            options=["resid_post", "attn_out", "mlp_out"],
            value=["attn_out", "mlp_out"],
            rows=3,
            description="Sites",
            style=LABEL,
        )
        self.margin = widgets.BoundedFloatText(
            1.0, min=0, max=100, description="Margin m", style=LABEL
        )
        self.lambda_f = widgets.BoundedFloatText(
            1.0, min=0, max=100, description="λ_F", style=LABEL
        )
        self.lambda_m = widgets.BoundedFloatText(
            0.1, min=0, max=100, description="λ_M", style=LABEL
        )
        self.epochs = widgets.BoundedIntText(25, min=1, max=500, description="Epochs", style=LABEL)
        self.start = widgets.Button(description="Fit", button_style="primary")
        self.stop = widgets.Button(description="Stop", disabled=True)
        self.progress = widgets.IntProgress(0, max=1, description="Epoch", style=LABEL)
        self.caption = widgets.HTML()
        self.map = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self.beta = widgets.FloatSlider(
            0.0, min=-2, max=2, step=0.1, description="β", disabled=True, style=LABEL, layout=WIDE
        )
        self.now = widgets.HTML()
        self.n_new = widgets.BoundedIntText(12, min=1, max=60, description="Tokens", style=LABEL)
        self.write = widgets.Button(description="Write on", disabled=True)
        self.written = widgets.HTML()
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self._stop.set())
        self.beta.observe(lambda _: self.show(), names="value")
        self.write.on_click(lambda _: self.write_on())
        answers = [
            self.right,
            self.wrong,
            self.method,
            self.sites,
            self.margin,
            self.lambda_f,
            self.lambda_m,
            self.epochs,
        ]
        self.box.children = [self.prompt, *answers, widgets.HBox([self.start, self.stop]), self.progress, self.status,
                             self.map, self.caption, self.beta, self.now, self.n_new, self.write, self.written]  # fmt: skip

    def begin(self) -> None:
        """Check what was typed, then fit in a thread of its own, so that the kernel still hears the Stop button."""
        with self.reporting():
            prompts = Prompts.of(
                self.model,
                [self.prompt.value],
                [as_token(self.right.value)],
                [as_token(self.wrong.value)],
            )
            kind, rate = METHODS[self.method.value]
            intervention = kind(Points.of(self.model, prompts.n_pos, sites=self.sites.value))
            objective = Objective(self.margin.value, self.lambda_f.value, self.lambda_m.value)
            self._busy(True)
            self.progress.value, self.progress.max = 0, self.epochs.value
            self.thread = threading.Thread(
                target=self._fit, args=(prompts, intervention, objective, rate), daemon=True
            )
            self.thread.start()

    def _fit(
        self, prompts: Prompts, intervention: Intervention, objective: Objective, rate: float
    ) -> None:
        def told(epoch: int) -> None:
            if self._stop.is_set():
                raise Stopped
            self.progress.value = epoch + 1

        try:
            with self.reporting():
                self.say("Fitting …")
                with self.using_model():
                    try:
                        fit(
                            self.model,
                            intervention,
                            prompts,
                            objective,
                            learning_rate=rate,
                            epochs=self.epochs.value,
                            on_epoch=told,
                        )
                        said = "Fitted"
                    except Stopped:
                        said = "Stopped early"
                    self.fitted = prompts, intervention
                    result = evaluate(self.model, intervention, prompts)
                sized = f"{-result.M0} of {result.n_parameters} parameters count"
                swapped = (
                    "the answers swap"
                    if result.swapped
                    else "the answers do not both swap between β = −1 and 1"
                )
                self.say(
                    f"{said}: {swapped}; E0 = {result.E0:.2f}, F = {result.F:.2f} nats; {sized}."
                )
                self._draw()
                self.show()
        finally:
            self._busy(False)

    def _busy(self, busy: bool) -> None:
        self._stop.clear()
        self.start.disabled, self.stop.disabled = busy, not busy
        self.beta.disabled = self.write.disabled = busy or self.fitted is None

    def _draw(self) -> None:
        """The map of what was learned: α, or the length of each vector."""
        prompts, intervention = self.fitted
        columns = token_strings(self.model, prompts.tokens[0])
        figure = Figure(
            figsize=(9, 3.6 * len(intervention.theta)), layout="constrained"
        )  # not by pyplot, which is not for threads
        axes = figure.subplots(len(intervention.theta), 1, squeeze=False)[:, 0]
        for ax, (site, theta) in zip(axes, intervention.theta.items()):
            vectors = theta.ndim == 3
            values = theta.detach().norm(dim=-1) if vectors else theta.detach()
            heat_map(values, columns=columns, label="‖v‖" if vectors else "α", ax=ax).set_title(
                site
            )
        self.map.value = picture(figure)
        self.caption.value = (
            "<p>What was learned, by layer and token. Strongest: "
            + "; ".join(map(escape, self._strongest(columns)))
            + ".</p>"
        )

    def _strongest(self, columns: list[str]) -> list[str]:
        """The picture in words: where each site's largest parameter is."""
        places = []
        for site, theta in self.fitted[1].theta.items():
            size = theta.detach().norm(dim=-1) if theta.ndim == 3 else theta.detach()
            layer, position = divmod(int(size.abs().argmax()), size.shape[1])
            places.append(
                f"{site} of layer {layer} at “{columns[position]}”, {size[layer, position].item():+.2f}"
            )
        return places

    @torch.no_grad()
    def show(self) -> None:
        """Both answers' probabilities and the likeliest tokens at the chosen β."""
        if self.fitted is None:
            return
        with self.reporting():
            prompts, intervention = self.fitted
            with self.using_model():
                logits = steered_logits(
                    self.model, prompts.tokens, intervention, [self.beta.value]
                )[0, 0]
            chances = logits.softmax(-1)
            answers = ((self.right, prompts.correct), (self.wrong, prompts.wrong))
            said = ", ".join(f"{box.value}: {chances[token].item():.1%}" for box, token in answers)
            self.now.value = f"<p role='status'>β = {self.beta.value:+.1f}. {escape(said)}</p>{top_tokens(self.model, logits)}"

    def steered(self, length: int) -> AbstractContextManager:
        """The model with the prompt's positions steered at the chosen β, for a text of some length."""
        return on_longer(self.fitted[1], length).applied(self.model, self.beta.value)

    def write_on(self) -> None:
        """Let the model continue the prompt at the chosen β, and beside it without."""
        with self.reporting():
            tokens = self.fitted[0].tokens
            with self.using_model():
                plain = continuation(
                    self.model, tokens, self.n_new.value, lambda length: nullcontext()
                )
                steered = continuation(self.model, tokens, self.n_new.value, self.steered)
            lines = {f"β = {self.beta.value:+.1f}": steered, "β = 0": plain}
            self.written.value = "".join(
                f"<p><strong>{name}:</strong> …{escape(text)}</p>" for name, text in lines.items()
            )

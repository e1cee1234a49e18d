"""The steering bench: fit scalars or vectors to your own prompt, and steer it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import ipywidgets as widgets
import pandas as pd
import torch
from IPython import get_ipython
from IPython.display import display
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor
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
from helpers.benches.controls import (
    as_token,
    examples,
    labelled,
    on_press,
    reported,
    say,
    top_tokens,
    typed,
)
from helpers.figures.plots import heat_map
from helpers.models.checks import checked, whole
from helpers.models.run import last_logits
from helpers.models.tokens import token_strings
from helpers.prompts.prompts import Prompts
from helpers.results.glue import picture

METHODS = {"ActivScalar": (ActivScalar, 1e-2), "SteerVec": (SteerVec, 1e-3)}  # learning rates
SITES = ("resid_post", "attn_out", "mlp_out")
INTERRUPTED = threading.Event()  # by the reader, who interrupts the kernel
# A prompt with the answers at β = 1 and at β = −1.
EXAMPLES = {
    "What is the capital of Poland?": (
        "The capital of Poland is London. Q: What is the capital of Poland? A:", "Warsaw", "London",
    ),
    "Who got the book?": ("When Ben met with Joe, Joe gave the book to", "Ben", "Joe"),
    "The nurse": ("The nurse went home early because", "he", "she"),
}  # fmt: skip


def steering_bench(model: TransformerBridge) -> None:
    """Controls for one prompt: fit an intervention, see its parameters, move β, write on."""
    if kernel := getattr(get_ipython(), "kernel", None):
        # JupyterLab runs a control's callback in a thread, which no signal reaches. The handler
        # that ipykernel restores after each cell is the one in force while such a thread runs.
        kernel.saved_sigint_handler = _interrupt
    number, limits = widgets.BoundedFloatText, {"min": 0, "max": 100}
    prompt, right, wrong = next(iter(EXAMPLES.values()))
    controls = {
        "prompt": labelled(widgets.Textarea, "Prompt", prompt),
        "right": labelled(widgets.Text, "Answer at β = 1", right),
        "wrong": labelled(widgets.Text, "Answer at β = −1", wrong),
        "method": labelled(widgets.Dropdown, "Method", "ActivScalar", options=list(METHODS)),
        "sites": labelled(widgets.SelectMultiple, "Sites", SITES[1:], options=SITES, rows=3),
        "margin": labelled(number, "Margin m", 1.0, **limits),
        "lambda_f": labelled(number, "λ_F", 1.0, **limits),
        "lambda_m": labelled(number, "λ_M", 0.1, **limits),
        "epochs": labelled(widgets.BoundedIntText, "Epochs", 25, min=1, max=500),
    }

    def run(**values) -> None:
        with reported():
            prompts, intervention = fit_prompt(model, **values)
            show_map(model, prompts, intervention)
            display(side_by_side(model, prompts, intervention))
            steer(model, prompts, intervention)

    display(examples(EXAMPLES, [controls[name] for name in ("prompt", "right", "wrong")]))
    on_press("Fit", run, **controls)


def fit_prompt(
    model: TransformerBridge,
    prompt: str,
    right: str,
    wrong: str,
    method: str,
    sites: tuple[str, ...],
    margin: float,
    lambda_f: float,
    lambda_m: float,
    epochs: int,
) -> tuple[Prompts, Intervention]:
    """Fit one prompt and say how it went; an interrupt of the kernel keeps what was learned.

    Raises:
        ValueError: a text is blank, an answer is not one token, or no site is chosen.
    """
    prompt, answers = typed(prompt, "prompt"), ([as_token(right)], [as_token(wrong)])
    prompts = Prompts.of(model, [prompt], *answers)
    kind, rate = METHODS[method]
    intervention = kind(Points.of(model, prompts.n_pos, sites=sites))
    objective, how = Objective(margin, lambda_f, lambda_m), "Fitted"

    # Between epochs, since an interrupt inside of one could leave its hooks on the model.
    def end_if_interrupted(epoch: int) -> None:
        if INTERRUPTED.is_set():
            raise KeyboardInterrupt

    options = {"learning_rate": rate, "epochs": epochs, "on_epoch": end_if_interrupted}
    try:
        with _interrupts_noted():
            say("Fitting. To stop, interrupt the kernel (■).")
            fit(model, intervention, prompts, objective, **options)
    except KeyboardInterrupt:
        how = "Stopped early"
    result = evaluate(model, intervention, prompts)
    swap = "swap" if result.swapped else "do not both swap between β = −1 and 1"
    say(
        f"{how}: the answers {swap}; E0 = {result.E0:.2f}, F = {result.F:.2f} nats; "
        f"{-result.M0} of {result.n_parameters} parameters count."
    )
    return prompts, intervention


def _interrupt(*_: object) -> None:
    INTERRUPTED.set()


@contextmanager
def _interrupts_noted() -> Iterator[None]:
    """Have an interrupt set ``INTERRUPTED`` inside the block instead of raising an error."""
    INTERRUPTED.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def show_map(model: TransformerBridge, prompts: Prompts, intervention: Intervention) -> None:
    """What was learned, by layer and token: α, or the length of each vector."""
    columns, strongest = token_strings(model, prompts.tokens[0]), []
    figure = Figure(figsize=(9, 3.6 * len(intervention.theta)), layout="constrained")
    axes = figure.subplots(len(intervention.theta), 1, squeeze=False)[:, 0]
    for ax, (site, theta) in zip(axes, intervention.theta.items()):
        vectors = theta.ndim == 3
        values = theta.detach().norm(dim=-1) if vectors else theta.detach()
        heat_map(values, columns=columns, label="‖v‖" if vectors else "α", ax=ax).set_title(site)
        layer, position = divmod(int(values.abs().argmax()), values.shape[1])
        place = f"{site} of layer {layer} at “{columns[position]}”"
        strongest.append(f"{place}, {values[layer, position].item():+.2f}")
    display(picture(figure, "What was learned, by layer and token."))
    say(f"Strongest: {'; '.join(strongest)}.")


@torch.no_grad()
@checked
def side_by_side(
    model: TransformerBridge, prompts: Prompts, intervention: Intervention
) -> pd.DataFrame:
    """The likeliest next tokens with their probabilities at β = −1, 0 and 1, a column each."""
    columns = {}
    for beta, name in ((-1.0, "β = −1"), (0.0, "β = 0"), (1.0, "β = +1")):
        logits = steered_logits(model, prompts.tokens, intervention, [beta])[0, 0]
        best = top_tokens(model, logits)
        columns[name] = best["next token"] + "  " + best["probability"]
    return pd.DataFrame(columns)


def steer(model: TransformerBridge, prompts: Prompts, intervention: Intervention) -> None:
    """Controls for a fitted prompt: β, and how far to write on."""
    beta = labelled(widgets.FloatSlider, "β", 0.0, min=-2, max=2, step=0.1)
    answers = {
        prompts.correct_texts[0].strip(): prompts.correct,
        prompts.wrong_texts[0].strip(): prompts.wrong,
    }

    # What the controls do
    @reported()
    @torch.no_grad()
    def show(beta: float) -> None:
        logits = steered_logits(model, prompts.tokens, intervention, [beta])[0, 0]
        chances = logits.softmax(-1)
        shares = [f"{text}: {chances[token].item():.1%}" for text, token in answers.items()]
        say(f"β = {beta:+.1f}. {', '.join(shares)}")
        display(top_tokens(model, logits))

    @reported()
    def write_on(n_new: int) -> None:
        for name, strength in ((f"β = {beta.value:+.1f}", beta.value), ("β = 0", 0.0)):
            say(f"{name}: …{continuation(model, prompts.tokens, n_new, intervention, strength)}")

    # The controls
    widgets.interact(show, beta=beta)
    n_new = labelled(widgets.BoundedIntText, "Tokens", 12, min=1, max=60)
    on_press("Write on", write_on, n_new=n_new)


@torch.no_grad()
@checked
def continuation(
    model: TransformerBridge,
    tokens: Int[Tensor, "1 pos"],
    n_new: int,
    intervention: Intervention,
    beta: float,
) -> str:
    """Greedy continuation of at most ``n_new`` tokens; only the prompt's positions are steered."""
    n_pos = tokens.shape[1]
    for _ in range(whole("n_new", n_new)):
        with longer(intervention, tokens.shape[1]).applied(model, beta):
            best = last_logits(model, tokens).argmax(-1, keepdim=True)
        if best.item() == model.tokenizer.eos_token_id:
            break
        tokens = torch.cat([tokens, best], dim=1)
    return model.tokenizer.decode(tokens[0, n_pos:])


@checked
def longer(intervention: Intervention, n_pos: int) -> Intervention:
    """The same parameters at the same positions of a longer prompt."""
    points = replace(intervention.points, n_pos=whole("n_pos", n_pos))
    made = type(intervention)(points).to(intervention.vec().device)
    made.load_state_dict(intervention.state_dict())
    return made

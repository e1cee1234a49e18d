"""The observable bench: which heads read your own observable, and steps along their vectors."""

from __future__ import annotations

import ipywidgets as widgets
import torch
from IPython.display import display
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

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
from helpers.figures.plots import head_map
from helpers.models.checks import checked
from helpers.models.run import read_activations
from helpers.models.tokens import token_strings, tokenize
from helpers.observable_propagation.edits import steer
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.pull_back import NormWeights
from helpers.results.glue import picture

# Words of weight +, words of weight −, and a prompt.
EXAMPLES = {
    "she or he": ("she", "he", "So, Jennifer really is a great friend, isn't"),
    "her or him": ("her", "him", "Tell Michael that I would like to speak to"),
    "numbers or names": ("one two three", "Ben Joe Anna", "On the table there were"),
}


def observable_bench(model: TransformerBridge) -> None:
    """Controls for one observable: a map of all heads, and a step along a head's vector."""
    first = next(iter(EXAMPLES.values()))
    plus = labelled(widgets.Text, "Tokens, weight +", first[0])
    minus = labelled(widgets.Text, "Tokens, weight −", first[1])
    prompt = labelled(widgets.Textarea, "Prompt", first[2], continuous_update=False)

    def read(plus: str, minus: str) -> None:
        with reported():
            # Every head's feature vector
            observable = mean_difference(model, plus, minus)
            vector = observable.vector(model)
            features = head_features(model, vector, norms=NormWeights())
            heads = longest_heads(features)
            # Their lengths as a map and in words
            figure = Figure(figsize=(7, 5), layout="constrained")
            ax = figure.subplots()
            head_map(features.norm(dim=-1), label="length of the feature vector", ax=ax)
            display(picture(figure, "Length of each head's feature vector."))
            n_heads, longest = features[..., 0].numel(), ", ".join(list(heads)[:5])
            of_heads = f"feature vectors of {n_heads} heads, with the norms' weights"
            say(f"{observable}: {of_heads}. Longest: {longest}.")
            widgets.interact(
                lambda prompt: step_controls(model, observable, features, heads, prompt),
                prompt=prompt,
            )

    display(examples(EXAMPLES, [plus, minus, prompt]))
    on_press("Read the heads", read, plus=plus, minus=minus)


def mean_difference(model: TransformerBridge, plus: str, minus: str) -> Observable:
    """The mean logit of the first list of words minus that of the second.

    Raises:
        ValueError: the first list is blank, a word is not one token, or the lists cancel.
    """
    weights: dict[str, float] = {}
    for words, sign in ((typed(plus, "first list").split(), 1), (minus.split(), -1)):
        for word in map(as_token, words):
            weights[word] = weights.get(word, 0.0) + sign / len(words)
    return Observable.of(model, weights)


@checked
def longest_heads(features: Float[Tensor, "layer head d_model"]) -> dict[str, tuple[int, int]]:
    """The twenty heads with the longest feature vectors, by a name that says the length."""
    lengths, heads = features.norm(dim=-1), {}
    for index in lengths.flatten().argsort(descending=True)[:20].tolist():
        layer, head = divmod(index, lengths.shape[1])
        heads[f"{layer}.{head} ({lengths[layer, head].item():.2f})"] = (layer, head)
    return heads


def step_controls(
    model: TransformerBridge,
    observable: Observable,
    features: Float[Tensor, "layer head d_model"],
    heads: dict[str, tuple[int, int]],
    prompt: str,
) -> None:
    """Controls for one prompt: a head, a token, and how long a step."""
    with reported():
        # The lists of heads and tokens
        tokens = tokenize(model, [typed(prompt, "prompt")])
        places = {}
        for i, text in enumerate(token_strings(model, tokens[0])):
            places[f"{i}: {text!r}"] = i
        first, last = next(iter(heads.values())), len(places) - 1

        @reported()
        def show(head: tuple[int, int], position: int, times: float) -> None:
            before, after, logits = step(model, tokens, observable, features, head, position, times)
            say(
                f"Observable {before:+.2f} → {after:+.2f} nats, with {times:+.1f} times the "
                f"activation's length added at token {position} before layer {head[0]}."
            )
            display(top_tokens(model, logits))

        # The controls
        controls = {
            "head": labelled(widgets.Dropdown, "Head", first, options=heads),
            "position": labelled(widgets.Dropdown, "Token", last, options=places),
            "times": labelled(widgets.FloatSlider, "Step / ‖x‖", 0.0, min=-2, max=2, step=0.1),
        }
        widgets.interact(show, **controls)


@torch.no_grad()
@checked
def step(
    model: TransformerBridge,
    tokens: Int[Tensor, "1 pos"],
    observable: Observable,
    features: Float[Tensor, "layer head d_model"],
    head: tuple[int, int],
    position: int,
    times: float,
) -> tuple[float, float, Float[Tensor, " d_vocab"]]:
    """The observable without and with a step along a head's vector; the logits with it.

    Args:
        position: where the step is added to the residual stream before the head's layer.
        times: length of the step, in lengths of the residual stream there.
    """
    name = f"blocks.{head[0]}.hook_resid_pre"
    length = read_activations(model, tokens, [name])[0][name][0, position].norm()
    vector = times * length * features[head] / features[head].norm()
    both = torch.stack([torch.zeros_like(vector), vector])
    plain, stepped = steer(model, tokens, head[0], position, both)[:, 0]
    return observable.measure(plain).item(), observable.measure(stepped).item(), stepped

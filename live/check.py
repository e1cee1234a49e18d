"""Run the graphs with ONNX Runtime, and compare them with the book's own model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.points import Points
from helpers.models.run import last_logits
from helpers.models.tokens import tokenize
from helpers.prompts.tasks import make_task
from live.graph import Shape
from live.weights import Blocks, of_layer

SITES = ("attn_out", "mlp_out")  # the order of the graphs' alpha
TOLERANCE = 1e-3  # nats
# Of the random scalars, about the size of learned ones. At 0.3 some prompts amplify rounding beyond
# the tolerance, in the book's own model too.
STD = 0.1
# Besides prompts of the papers' tasks: one token, other scripts, code, digits, spaces.
ODD = (
    "a",
    "Привет, мир! Как",
    "def f(x):\n    return",
    "1 2 3 4 5 6 7",
    "  two  spaces ",
    "🙂 naïve",
)


class Runner:
    """The exported model, run on a CPU as the page runs it: layer by layer."""

    def __init__(self, shape: Shape, tensors: dict[str, Blocks], graphs: dict[str, bytes]) -> None:
        import onnxruntime  # here: `make live` alone installs it

        self.shape = shape
        self.layers = [of_layer(shape, tensors, layer) for layer in range(shape.n_layers)]
        self.table = tensors["token_embd.weight"].floats()
        self.norm = tensors["output_norm.weight"].floats()
        self.sessions = {}
        for name, graph in graphs.items():
            self.sessions[name] = onnxruntime.InferenceSession(graph)

    def streams(
        self, tokens: Int[Tensor, "batch pos"], alpha: Float[Tensor, "layer 2 pos"]
    ) -> list[np.ndarray]:
        """The residual stream in front of every layer and at the end."""
        xs = [self.table[tokens.numpy()]]
        for weights, scales in zip(self.layers, alpha.numpy()):
            inputs = {"x": xs[-1], "alpha": np.repeat(scales[None], len(tokens), 0)}
            xs += self.sessions["layer"].run(None, inputs | weights)
        return xs

    def last_logits(
        self, tokens: Int[Tensor, "batch pos"], alpha: Float[Tensor, "layer 2 pos"]
    ) -> Float[Tensor, "batch d_vocab"]:
        """Logits of the last position."""
        x = self.streams(tokens, alpha)[-1][:, -1]
        inputs = {"x": x, "weight": self.norm, "table": self.table}
        return torch.from_numpy(self.sessions["logits"].run(None, inputs)[0])

    def gradient(
        self,
        tokens: Int[Tensor, "1 pos"],
        alpha: Float[Tensor, "layer 2 pos"],
        weights: Float[Tensor, " d_vocab"],
    ) -> Float[Tensor, "layer 2 pos"]:
        """Gradient, by the scalars, of a weighted sum of the last position's logits."""
        *xs, last = self.streams(tokens, alpha)
        inputs = {"x": last[:, -1], "dlogits": weights[None].numpy()}
        inputs |= {"weight": self.norm, "table": self.table}
        dy = np.zeros_like(last)
        (dy[:, -1],) = self.sessions["logits_gradient"].run(None, inputs)
        found = []
        for x, scales, own in reversed(list(zip(xs, alpha.numpy(), self.layers))):
            inputs = {"x": x, "alpha": scales[None], "dy": dy} | own
            dy, of_layer = self.sessions["layer_gradient"].run(None, inputs)
            found.append(torch.from_numpy(of_layer[0]))
        return torch.stack(found[::-1])


@dataclass(frozen=True)
class Case:
    """A prompt with scalars, and the last position's logits by the book's model."""

    text: str
    alpha: Float[Tensor, "layer 2 pos"]
    logits: Float[Tensor, " d_vocab"]


def prompts(model: TransformerBridge, n: int = 20) -> list[str]:
    """Prompts of the papers' two tasks, and odd ones."""
    rest = n - len(ODD)
    texts = []
    for name, count in (("IOI", rest - rest // 2), ("CCC", rest // 2)):
        texts += make_task(model, name, n_train=count, n_test=1, seed=0).train.texts
    return [*texts, *ODD][:n]


@torch.no_grad()
def cases(model: TransformerBridge, texts: list[str], seed: int = 0) -> list[Case]:
    """Each prompt unscaled, and with scalars from N(0, 0.1²), by the book's model."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for text in texts:
        tokens = tokenize(model, [text])
        shape = model.cfg.n_layers, 2, tokens.shape[1]
        # Rounded, so that the page's copy in decimals is the same numbers.
        random = (torch.randn(shape, generator=generator) * STD).mul(1e3).round().div(1e3)
        for alpha in (torch.zeros(shape), random):
            with scaled(model, alpha).applied(model):
                made.append(Case(text, alpha, last_logits(model, tokens)[0]))
    return made


def scaled(model: TransformerBridge, alpha: Float[Tensor, "layer 2 pos"]) -> ActivScalar:
    """The book's intervention with these scalars."""
    intervention = ActivScalar(Points.of(model, alpha.shape[-1], sites=SITES))
    with torch.no_grad():
        for index, site in enumerate(SITES):
            intervention.theta[site].copy_(alpha[:, index])
    return intervention


def differences(model: TransformerBridge, runner: Runner, checked: list[Case]) -> list[float]:
    """Maximum absolute difference of the logits of each case, in nats.

    Raises:
        ArithmeticError: one of more than 1e-3.
    """
    found = []
    for case in checked:
        ours = runner.last_logits(tokenize(model, [case.text]).cpu(), case.alpha)[0]
        found.append((ours - case.logits.cpu()).abs().max().item())
        if not found[-1] <= TOLERANCE:
            raise ArithmeticError(
                f"the page's graphs differ from the book's model by {found[-1]:.2g} nats on "
                f"{case.text!r}; {TOLERANCE:g} is allowed. Nothing was put into the site."
            )
    return found


def gradient_difference(model: TransformerBridge, runner: Runner, case: Case) -> float:
    """Maximum difference of the gradient by the scalars, as a share of its largest component.

    Of a random sum of the logits.

    Raises:
        ArithmeticError: more than 1e-3.
    """
    tokens = tokenize(model, [case.text])
    weights = torch.randn(len(case.logits), generator=torch.Generator().manual_seed(0))
    intervention = scaled(model, case.alpha)
    with intervention.applied(model):
        (last_logits(model, tokens)[0] @ weights).backward()
    expected = torch.stack([intervention.theta[site].grad for site in SITES], 1)
    found = runner.gradient(tokens, case.alpha, weights)
    share = ((found - expected).abs().max() / expected.abs().max()).item()
    if not share <= TOLERANCE:
        raise ArithmeticError(
            f"the gradient of the page's graphs differs from the book's by {share:.2g} of its "
            f"largest component; {TOLERANCE:g} is allowed. Nothing was put into the site."
        )
    return share

"""The three-term objective of the activation-scaling paper, and its evaluation.

Effectiveness, faithfulness and minimality are at most 0 and best at 0 (Eq. 6 to 9). Logits are
those of the last token, in nats. Leading axes, such as many settings, are batch axes. All sums are
taken in at least 32 bits, whatever the precision of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import kl_div
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention, steered_logits
from helpers.models.checks import checked, real, whole
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts

Logits = Float[Tensor, "*setting batch d_vocab"]
Base = Float[Tensor, "*#setting batch d_vocab"]
Answers = Int[Tensor, "*#setting #batch"]

NEGLIGIBLE = 0.01  # |θ| below this counts as zero (section 3.4)


@checked
def logit_diff(logits: Logits, correct: Answers, wrong: Answers) -> Float[Tensor, "*setting batch"]:
    """Logit of the correct minus logit of the wrong answer.

    Example:
        >>> logits = torch.tensor([[2.0, 0.5, 1.0], [0.0, 3.0, 1.0]])
        >>> logit_diff(logits, correct=torch.tensor([0, 0]), wrong=torch.tensor([1, 1]))
        tensor([ 1.5000, -3.0000])
    """

    def at(answer: Answers) -> Tensor:
        try:
            found = logits.gather(-1, answer.expand(logits.shape[:-1])[..., None])
        except RuntimeError as error:
            raise ValueError(f"answers must be ids below {logits.shape[-1]}: {answer}.") from error
        return wide(found.squeeze(-1))

    return at(correct) - at(wrong)


@checked
def effectiveness(
    plus: Logits,
    minus: Logits,
    correct: Answers,
    wrong: Answers,
    margin: float | Float[Tensor, "setting 1"] = 0.0,
) -> Float[Tensor, "*setting"]:
    """E_m, Eq. 6: how far the answers are from swapped, at β = 1 (plus) and β = −1 (minus).

    0 when on every prompt the correct answer leads by at least the margin at β = 1, and the wrong
    one at β = −1.

    Example:
        At β = −1 the correct answer still leads, by 1 nat:

        >>> plus, minus = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> effectiveness(plus, minus, correct=torch.tensor([0]), wrong=torch.tensor([1]))
        tensor(-1.)
    """
    up, down = (logit_diff(logits, correct, wrong) for logits in (plus, minus))
    return swap_gap(up, down, margin).mean(-1)


@checked
def swap_gap(
    up: Float[Tensor, "*batch"],
    down: Float[Tensor, "*batch"],
    margin: float | Float[Tensor, "setting 1"] = 0.0,
) -> Float[Tensor, "*batch"]:
    """E_m of each prompt from its logit differences at β = 1 (up) and β = −1 (down).

    Raises:
        TypeError, ValueError: a margin that is negative or not finite.
    """
    if not isinstance(margin, Tensor):
        real("margin", margin, 0)
    return (up - margin).clamp_max(0) + (-down - margin).clamp_max(0)


@checked
def faithfulness(plus: Logits, minus: Logits, base: Base) -> Float[Tensor, "*setting"]:
    """F, Eq. 7: minus the KL divergence of the steered from the base distribution.

    Summed over β = ±1, mean over prompts.

    Example:
        >>> base, plus = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
        >>> faithfulness(plus, base + 5, base)  # a constant on all logits is no change
        tensor(-0.3681)
    """
    return -(divergence(plus, base) + divergence(minus, base)).mean(-1)


@checked
def divergence(steered: Logits, base: Base) -> Float[Tensor, "*setting batch"]:
    """KL divergence of the steered from the base distribution, for each prompt."""
    log_base, log_steered = wide(base).log_softmax(-1), wide(steered).log_softmax(-1)
    # kl_div(input, target) is KL(target ‖ input): the steered distribution is the first argument
    # of the divergence in Eq. 7.
    return kl_div(log_base, log_steered, log_target=True, reduction="none").sum(-1)


@checked
def minimality(theta: Float[Tensor, "*setting n_parameters"], p: int) -> Float[Tensor, "*setting"]:
    """M_p, Eq. 8: minus the sum of ``|θ|`` (p = 1) or the number of non-negligible θ (p = 0)."""
    if whole("p", p, 0, 2):
        return -wide(theta).abs().sum(-1)
    return -(theta.abs() >= NEGLIGIBLE).sum(-1)


@torch.no_grad()
def prune(intervention: Intervention) -> None:
    """Set negligible θ to zero, so that what M_0 does not count does nothing."""
    for theta in intervention.theta.values():
        theta[theta.abs() < NEGLIGIBLE] = 0


def count_places(intervention: Intervention) -> int:
    """Places (site, layer, position) with an entry of θ that M_0 counts: −M_0 for scalars."""
    places = 0
    for theta in intervention.theta.values():
        counted = theta.abs() >= NEGLIGIBLE
        places += int(counted.reshape(*counted.shape[:2], -1).any(-1).sum())
    return places


def wide(values: Tensor) -> Tensor:
    """In at least 32 bits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True)
class Objective:
    """Ψ = E_m + λ_F·F + λ_M·M_1 (Eq. 9), to be maximised.

    Attributes:
        margin: m ≥ 0, the lead that a swapped answer needs, in nats.
        lambda_f, lambda_m: λ_F, λ_M ≥ 0, the weights of faithfulness and minimality.
    """

    margin: float = 0.0
    lambda_f: float = 0.0
    lambda_m: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            real(name, value, 0)

    def terms(
        self,
        theta: Float[Tensor, " n_parameters"],
        plus: Logits,
        minus: Logits,
        base: Logits,
        correct: Answers,
        wrong: Answers,
    ) -> dict[str, Float[Tensor, ""]]:
        """E_m, F, M_1 and their weighted sum ``psi``."""
        weights = self.margin, self.lambda_f, self.lambda_m
        return weighted_terms(*weights, minimality(theta, 1), plus, minus, base, correct, wrong)


def weighted_terms(
    margin: float | Float[Tensor, "setting 1"],
    lambda_f: float | Float[Tensor, " setting"],
    lambda_m: float | Float[Tensor, " setting"],
    m_1: Float[Tensor, "*setting"],
    plus: Logits,
    minus: Logits,
    base: Base,
    correct: Answers,
    wrong: Answers,
) -> dict[str, Float[Tensor, "*setting"]]:
    """:meth:`Objective.terms` for one or for many objectives."""
    e_m = effectiveness(plus, minus, correct, wrong, margin)
    f = faithfulness(plus, minus, base)
    return {"E_m": e_m, "F": f, "M_1": m_1, "psi": e_m + lambda_f * f + lambda_m * m_1}


@torch.no_grad()
@checked
def base_logits(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], batch_size: int = 64
) -> Float[Tensor, "batch d_vocab"]:
    """Last-token logits of the unsteered model."""
    chunks = tokens.split(whole("batch_size", batch_size))
    return torch.cat([last_logits(model, chunk) for chunk in chunks])


@checked
def base_diff(model: TransformerBridge, prompts: Prompts) -> Float[Tensor, " batch"]:
    """Logit difference of each prompt of the unsteered model, in nats."""
    return logit_diff(base_logits(model, prompts.tokens), prompts.correct, prompts.wrong)


@dataclass(frozen=True)
class Evaluation:
    """Section 3.4: E_0, F and M_0 of an intervention on a set of prompts; each is best at 0.

    Attributes:
        E0: effectiveness at margin 0, in nats.
        F: faithfulness, in nats.
        M0: minus the number of non-negligible parameters.
        swapped: share of the prompts whose answers both signs of β swap.
        n_parameters, n_prompts: sizes.
    """

    E0: float
    F: float
    M0: int
    swapped: float
    n_parameters: int
    n_prompts: int

    @classmethod
    @checked
    def of(
        cls,
        theta: Float[Tensor, " n_parameters"],
        plus: Logits,
        minus: Logits,
        base: Logits,
        correct: Answers,
        wrong: Answers,
    ) -> Evaluation:
        """From the logits at β = 1, −1 and 0."""
        up, down = (logit_diff(logits, correct, wrong) for logits in (plus, minus))
        return cls(
            E0=swap_gap(up, down).mean().item(),
            F=faithfulness(plus, minus, base).item(),
            M0=int(minimality(theta, 0)),
            swapped=((up > 0) & (down < 0)).float().mean().item(),
            n_parameters=theta.numel(),
            n_prompts=len(correct),
        )


@torch.no_grad()
@checked
def evaluate(
    model: TransformerBridge,
    intervention: Intervention,
    prompts: Prompts,
    *,
    batch_size: int = 64,
) -> Evaluation:
    """Run the prompts with β = 0, 1 and −1."""
    base, how = base_logits(model, prompts.tokens, batch_size), {"batch_size": batch_size}
    plus, minus = steered_logits(model, prompts.tokens, intervention, [1.0, -1.0], **how)
    return Evaluation.of(intervention.vec(), plus, minus, base, prompts.correct, prompts.wrong)

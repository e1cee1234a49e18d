"""The prompt itself as an edit: an instruction in front of it, one for each sign of β."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, real
from helpers.models.resume import Run
from helpers.models.run import last_logits
from helpers.models.tokens import encode
from helpers.prompts.prompts import Prompts
from helpers.ruler.edits import Edit
from helpers.ruler.methods import Method, Seen, register

# For β > 0 and for β < 0.
INSTRUCTIONS = {
    "IOI": ("Nobody gives a thing to himself.", "Everybody here gives things to himself."),
    "conflict": ("Correct what is wrong.", "Repeat what the text says."),
    "pronoun": ("This story is about a woman.", "This story is about a man."),
    "occupation": ("Everyone here works in a hospital.", "Everyone here works with computers."),
}


@checked
@dataclass(frozen=True)
class InFront:
    """An edit of the tokens: a text after the first one. The size of β does not matter.

    Attributes: as those of :class:`helpers.ruler.edits.Edit`.
    """

    texts: tuple[Int[Tensor, " _"], Int[Tensor, " _"]]
    size: int
    places: int
    layer: None = None

    @torch.no_grad()
    @checked
    def logits(
        self, model: TransformerBridge, prompts: Prompts, run: Run | None, betas: list[float]
    ) -> Float[Tensor, "beta prompt d_vocab"]:
        """As :meth:`Edit.logits`."""
        tokens, by_sign = prompts.tokens, []
        if not (betas := [real("beta", beta) for beta in betas]):
            raise ValueError("betas must be a list of strengths, and it is empty.")
        for text in self.texts:
            front = text.expand(len(tokens), -1)
            longer = torch.cat([tokens[:, :1], front, tokens[:, 1:]], dim=1)
            by_sign.append(last_logits(model, longer))
        return torch.stack([by_sign[beta < 0] for beta in betas])


@register
class Instruction(Method):
    """An instruction in front of the prompt, written before any result was seen."""

    name, source, needs, layers = "instruction in front", "control", "a person's words", "all"

    def make(self, seen: Seen, layer: int) -> Edit:
        texts = []
        for text in INSTRUCTIONS[seen.task.name]:
            ids = encode(seen.model, text)
            texts.append(torch.tensor(ids, device=seen.train.tokens.device))
        n = max(map(len, texts))
        return InFront(tuple(texts), n, n)

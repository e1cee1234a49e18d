"""A template filled with many names, run once, and an observable on it: values, effects, edits.

What the chapter on pronouns writes out: every person has a row of one run, and whatever needs some
people alone takes their rows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.blocks import norm_after
from helpers.models.norms import Norm
from helpers.models.resume import Run
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.pull_back import head_weights
from helpers.prompts.people import NamePrompts, Person


@dataclass(frozen=True)
class PeopleRun:
    """One run of a template with many names, and an observable; :meth:`of` makes it.

    Attributes:
        observable: what is measured.
        run: of all prompts, a row for each person.
        values: the observable in nats.
        z: what the heads of each layer wrote at the last token, before W_O.
        row_of: each person's row.
    """

    observable: Observable
    run: Run
    values: Float[Tensor, " person"]
    z: list[Float[Tensor, "person head d_head"]]
    row_of: dict[Person, int]

    @classmethod
    def of(
        cls,
        model: TransformerBridge,
        observable: Observable,
        template: str,
        people: Sequence[Person],
    ) -> PeopleRun:
        """Run the template once with every name.

        Raises:
            ValueError: as :meth:`helpers.prompts.people.NamePrompts.of`.
        """
        run = Run.of(model, NamePrompts.of(model, template, people).tokens)
        names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
        values, z = value_at(model, observable, run.ends), run.read(model, names, -1)
        return cls(observable, run, values, z, dict(zip(people, range(len(people)))))

    def rows(self, people: Sequence[Person]) -> Int[Tensor, " person"]:
        """Their rows.

        Raises:
            KeyError: a person who was not in the run.
        """
        rows = [self.row_of[person] for person in people]
        return torch.tensor(rows, device=self.values.device)

    def patching(
        self, model: TransformerBridge, people: Sequence[Person]
    ) -> Float[Tensor, "pair layer head"]:
        """Direct effect of every head, clean − patched, from women's to men's prompts in turn.

        As :func:`helpers.observable_propagation.patching.path_patching`, with no further run.
        """
        women = self.rows([person for person in people if person[1] == "F"])
        men = self.rows([person for person in people if person[1] == "M"])
        pairs, effects = min(len(women), len(men)), []
        women, men = women[:pairs], men[:pairs]
        final, x = Norm.of(model, "ln_final"), self.run.ends[women]
        vector = self.observable.vector(model)
        for layer, z in enumerate(self.z):
            W_O = head_weights(model, layer)[1]
            change = torch.einsum("bhe,hem->bhm", z[men] - z[women], W_O)
            if (norm := norm_after(model, layer, "attn")) is not None:
                own = torch.einsum("bhe,hem->bm", z[women], W_O)[:, None]
                change = norm(own + change) - norm(own)
            effects.append((final(x)[:, None] - final(x[:, None] + change)) @ vector)
        return torch.stack(effects, dim=1).cpu()


def value_at(
    model: TransformerBridge, observable: Observable, x: Float[Tensor, "*n d_model"]
) -> Float[Tensor, "*n"]:
    """An observable's value, in nats, from the input of the final norm."""
    return Norm.of(model, "ln_final")(x) @ observable.vector(model) + observable.bias(model)

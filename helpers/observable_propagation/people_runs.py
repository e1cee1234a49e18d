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

from helpers.models.checks import checked
from helpers.models.direct import post_norm_inputs
from helpers.models.resume import Run
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import direct_effects
from helpers.prompts.people import NamePrompts, Person


@dataclass(frozen=True)
class PeopleRun:
    """One run of a template with many names, and an observable; :meth:`of` makes it.

    Attributes:
        observable: what is measured.
        run: of all prompts, a row for each person.
        values: the observable in nats.
        z: what the heads of each layer wrote at the last token, before W_O.
        norm_inputs: there, of the norms after attention, by hook; most models have none.
        row_of: each person's row.
    """

    observable: Observable
    run: Run
    values: Float[Tensor, " person"]
    z: list[Float[Tensor, "person head d_head"]]
    norm_inputs: dict[str, Float[Tensor, "person d_model"]]
    row_of: dict[Person, int]

    @classmethod
    @checked
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
        heads = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
        after = post_norm_inputs(model)
        found = run.read(model, [*heads, *after], -1)
        z, inputs = found[: len(heads)], dict(zip(after, found[len(heads) :]))
        values = observable.measure_stream(model, run.ends)
        return cls(observable, run, values, z, inputs, dict(zip(people, range(len(people)))))

    @checked
    def rows(self, people: Sequence[Person]) -> Int[Tensor, " person"]:
        """Their rows.

        Raises:
            ValueError: a person who was not in the run.
        """
        if unknown := [person for person in people if person not in self.row_of]:
            raise ValueError(f"{unknown[0]} was not in the run: give people who were.")
        rows = [self.row_of[person] for person in people]
        return torch.tensor(rows, device=self.values.device)

    @checked
    def patching(
        self, model: TransformerBridge, people: Sequence[Person]
    ) -> Float[Tensor, "pair layer head"]:
        """Direct effect of every head, clean − patched, from women's to men's prompts in turn.

        As :func:`helpers.observable_propagation.patching.path_patching`, with no further run.

        Raises:
            ValueError: as :meth:`rows`, and as :func:`direct_effects` there.
        """
        women = self.rows([person for person in people if person[1] == "F"])
        men = self.rows([person for person in people if person[1] == "M"])
        pairs = min(len(women), len(men))
        if not pairs or len(women) + len(men) < len(people):
            raise ValueError(f"patching needs women (F) and men (M), not {people!r:.60}.")
        women, men, moved, inputs = women[:pairs], men[:pairs], [], {}
        for z in self.z:
            moved.append(z[men] - z[women])
        for name, values in self.norm_inputs.items():
            inputs[name] = values[women]
        found = direct_effects(model, self.observable, self.run.ends[women], moved, inputs)
        return found.cpu()


@checked
def post_norm_lengths(
    model: TransformerBridge, runs: Sequence[Run], rows: Int[Tensor, " row"] | Sequence[int]
) -> dict[str, float]:
    """Mean ‖x‖ of the inputs of norms after attention at the last token, for ``NormWeights``.

    Between a head and the logits such a norm divides as the final one does (section 4.4). Most
    models have none: then there is nothing to measure.

    Args:
        runs: of several templates, which count alike.
        rows: of every run.
    """
    hooks, lengths = post_norm_inputs(model), []
    if not hooks:
        return {}
    for run in runs:
        inputs = torch.stack(run.read(model, hooks, -1))  # [norm prompt d_model]
        lengths.append(inputs[:, rows].norm(dim=-1).mean(-1))
    means = torch.stack(lengths).mean(0).tolist()
    return {hook.removesuffix(".hook_in"): mean for hook, mean in zip(hooks, means)}

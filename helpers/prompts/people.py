"""Prompts about named women and men (section 6.3, observable propagation)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models import checks
from helpers.models.checks import checked
from helpers.models.load import device_of
from helpers.models.tokens import encode_prompt, is_single, single_token, tokenize
from helpers.prompts.words import names

# The paper's. Apostrophes are straight, as in its code: the curly ones of its appendix make other
# tokens.
SUBJECT = "So, {name} really is a great friend, isn't"
OBJECT = "What do I think about {name}? Well, to be honest, I love"
OCCUPATION = "My friend {name} is an excellent"
SUBJECT_GROUPS = (  # appendix A.3
    SUBJECT,
    "Man, {name} is so funny, isn't",
    "Really, {name} always works so hard, doesn't",
)
OCCUPATION_GROUPS = (  # the paper has the first alone
    OCCUPATION,
    "My neighbor {name} works as a",
    "I heard that {name} wants to become a",
    "Years ago my cousin {name} became a famous",
)
# Others that ask the same, for judging what was settled on the templates above.
FRESH = {
    SUBJECT: "Honestly, {name} is such a kind neighbor, isn't",
    OBJECT: "What was it like to meet {name}? Well, frankly, I admired",
    OCCUPATION: "Our teacher says {name} is a gifted",
    OCCUPATION_GROUPS[1]: "After school {name} found work as a",
    OCCUPATION_GROUPS[2]: "People know that {name} would like to be a",
    OCCUPATION_GROUPS[3]: "In the end {name} turned into a brilliant",
    SUBJECT_GROUPS[1]: "Wow, {name} is so clever, isn't",
    SUBJECT_GROUPS[2]: "Usually, {name} gets up very early, doesn't",
}
PAPER_NAMES = {
    "F": ("Jennifer", "Jane", "Annie", "Chloe", "Amy", "Judy", "Lisa", "Carol", "Clara", "Sarah"),
    "M": ("John", "David", "Mark", "Paul", "Ryan", "Gary", "Jack", "Arnold", "Joe", "Andy"),
}

Person = tuple[str, str]  # name, and F or M as registered for most of its bearers


@dataclass(frozen=True)
class NamePrompts:
    """One template filled with names: prompts of one length with the name at one position.

    Attributes:
        template: with ``{name}`` in it.
        people: (name, F or M) of each prompt.
        tokens: ids, beginning-of-sequence token first.
        female: which prompts have a woman's name.
        name_position: of the name; the beginning-of-sequence token is 0.
    """

    template: str
    people: tuple[Person, ...]
    tokens: Int[Tensor, "batch pos"]
    female: Bool[Tensor, " batch"]
    name_position: int

    @classmethod
    @checked
    def of(cls, model: TransformerBridge, template: str, people: Sequence[Person]) -> NamePrompts:
        """Fill a template with names.

        Raises:
            ValueError: a template without ``{name}`` after a space, no names, or a name that is not
                one token there.
        """
        before, *after = checks.texts("template", [template])[0].split(" {name}")
        if len(after) != 1:
            raise ValueError(f"the template {template!r} must have ' {{name}}' in it, once.")
        pairs = [person for person in people if isinstance(person, tuple) and len(person) == 2]
        if len(pairs) < len(people) or not all(sex in PAPER_NAMES for _, sex in pairs):
            raise ValueError(f"people must be pairs of a name and F or M, not {people!r}.")
        texts = [f"{before} {name}{after[0]}" for name, _ in people]
        tokens = tokenize(model, texts)
        position = len(encode_prompt(model, before)) if before else 1
        for text, (name, _), token in zip(texts, people, tokens[:, position].tolist()):
            if token != single_token(model, " " + name):
                raise ValueError(f"{name!r} is not token {position} of {text!r}.")
        female = torch.tensor([sex == "F" for _, sex in people], device=device_of(model))
        return cls(template, tuple(people), tokens, female, position)

    @property
    def from_paper(self) -> Bool[Tensor, " batch"]:
        """Which prompts have a name of the paper's twenty."""
        known = {name for group in PAPER_NAMES.values() for name in group}
        return torch.tensor([name in known for name, _ in self.people], device=self.tokens.device)

    def pairs(self) -> tuple[Int[Tensor, "pair pos"], Int[Tensor, "pair pos"]]:
        """Women's and men's prompts, one to one in their order; the longer list is cut off."""
        women, men = self.tokens[self.female], self.tokens[~self.female]
        n = min(len(women), len(men))
        return women[:n], men[:n]

    def __len__(self) -> int:
        return len(self.people)


@checked
def template_for(seed: int, template: str) -> str:
    """A template for the book's own seed, 0; for any other its counterpart in ``FRESH``.

    Raises:
        ValueError: a template that has none.
    """
    if template not in FRESH:
        raise ValueError(f"{template!r} has no counterpart; these have: {', '.join(FRESH)}.")
    return FRESH[template] if checks.whole("seed", seed, 0) else template


def paper_people(model: TransformerBridge) -> list[Person]:
    """The paper's names that are one token for this model."""
    people = [(name, sex) for sex, group in PAPER_NAMES.items() for name in group]
    return [(name, sex) for name, sex in people if is_single(model, " " + name)]


def one_token_names(
    model: TransformerBridge, seed: int = 0, *, fresh: bool = False
) -> tuple[dict[str, list[str]], Counter[str]]:
    """Names that are one token for this model, by sex, each list in an order drawn with ``seed``.

    ``fresh`` takes another list of names. The second value counts the names left out, by reason.
    """
    dropped: Counter[str] = Counter()
    kept: dict[str, list[str]] = {"F": [], "M": []}
    for name, sex in names(fresh):
        if is_single(model, " " + name):
            kept[sex].append(name)
        else:
            dropped["names of several tokens"] += 1
    random = Random(checks.whole("seed", seed, 0))
    for group in kept.values():
        random.shuffle(group)
    return kept, dropped


def two_halves(
    model: TransformerBridge,
    *,
    per_gender: int | None = None,
    seed: int = 0,
    fresh: bool = False,
) -> tuple[list[Person], list[Person], Counter[str]]:
    """One-token names in two halves that share none, with as many women as men in each.

    Args:
        per_gender: women, and men, in each half; as many as there are if not given.
        seed: of the split.
        fresh: take another list of names, on which nothing was settled.

    Returns:
        One half to choose on, one to report on, and the number of names left out, by reason.

    Raises:
        ValueError: too few names.
    """
    kept, dropped = one_token_names(model, seed, fresh=fresh)
    most = min(map(len, kept.values())) // 2
    size = most if per_gender is None else checks.whole("per_gender", per_gender)
    if not 1 <= size <= most:
        raise ValueError(f"{size} women and men in each half: there are names for 1 to {most}.")
    if surplus := sum(len(group) - 2 * size for group in kept.values()):
        dropped["not needed"] = surplus
    halves: tuple[list[Person], list[Person]] = ([], [])
    for sex, group in kept.items():
        halves[0].extend((name, sex) for name in group[:size])
        halves[1].extend((name, sex) for name in group[size : 2 * size])
    return *halves, dropped


@checked
def split_rows(
    female: Bool[Tensor, " person"], per_gender: int, seed: int
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " other"]]:
    """Rows of people in two halves that share none, both with women first, then men.

    Args:
        female: of each person.
        per_gender: women, and men, of the first half; the second has all others.
        seed: of the split.

    Raises:
        ValueError: too few women or men for two halves.
    """
    least = int(min(female.sum(), (~female).sum()))
    if not 1 <= checks.whole("per_gender", per_gender) < least:
        raise ValueError(
            f"{per_gender} of each in a half: two halves have room for 1 to {least - 1}."
        )
    generator, chosen, others = torch.Generator().manual_seed(seed), [], []
    for rows in (female.nonzero()[:, 0], (~female).nonzero()[:, 0]):
        rows = rows[torch.randperm(len(rows), generator=generator)]
        chosen.append(rows[:per_gender])
        others.append(rows[per_gender:])
    return torch.cat(chosen), torch.cat(others)

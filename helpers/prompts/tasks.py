"""The tasks of table 1, activation scaling, checked against a model's own tokenizer.

CCC is country–capital conflict, IOI indirect object identification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from itertools import permutations
from random import Random

from transformer_lens.model_bridge import TransformerBridge

from helpers.models.tokens import is_single
from helpers.prompts.prompts import Prompts, Task
from helpers.prompts.words import capitals, names

TEMPLATES = {
    "CCC": (
        # The paper's.
        "The capital of {country} is {wrong}. Q: What is the capital of {country}? A:",
        "The capital of {country} is {wrong}. The capital of {country} is",
        # As long as the first, with the words moved.
        "The capital city {wrong} is in {country}. Q: What is {country}'s capital? A:",
    ),
    "IOI": (
        "When {a} met with {b}, {b} gave the book to",  # the paper's
        "When {a} and {b} went to the store, {b} gave a drink to",
        "Then {a} and {b} had a long talk, and {b} handed the letter to",
    ),
}
Example = tuple[str, str, str]  # prompt, correct answer, wrong answer


def make_task(
    model: TransformerBridge,
    name: str,
    *,
    template: int = 0,
    n_train: int = 8,
    n_test: int = 8,
    seed: int = 0,
) -> Task:
    """Draw a task's prompts, the same on every machine for the same seed and tokenizer.

    Args:
        model: its tokenizer decides which answers are one token and which prompts of one length.
        name: ``CCC`` or ``IOI``.
        template: index into ``TEMPLATES[name]``; 0 is the paper's.
        n_train, n_test: prompts in each half.
        seed: of the split and the draw.

    Raises:
        ValueError: unknown task or template, an empty half, or too few candidates; the message says
            how many there are and what was left out.
    """
    if name not in TEMPLATES:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TEMPLATES)}.")
    if not 0 <= template < len(TEMPLATES[name]):
        raise ValueError(f"{name} has templates 0 to {len(TEMPLATES[name]) - 1}, not {template}.")
    if n_train < 1 or n_test < 1:
        raise ValueError(f"n_train = {n_train} and n_test = {n_test} must be at least 1.")

    # Candidates that make prompts of the commonest length, in an order drawn with the seed.
    text, random = TEMPLATES[name][template], Random(seed)
    dropped: Counter[str] = Counter()
    prompts: dict[Hashable, str] = {}
    if name == "CCC":
        for country, capital in _countries(model, dropped):
            prompts[country, capital] = text.format(country=country, wrong=capital)
    else:
        for person in _people(model, dropped):
            prompts[person] = text.format(a=person, b=person)
    kept = _of_one_length(model, prompts, dropped)
    random.shuffle(kept)

    # The halves share no country and no name; a larger test set gets a larger share of them.
    cut = max(2, min(len(kept) - 2, round(len(kept) * n_train / (n_train + n_test))))
    halves = []
    for part, size in ((kept[:cut], n_train), (kept[cut:], n_test)):
        examples = (_conflicts if name == "CCC" else _pairs)(text, part, random)
        if len(examples) < size:
            raise ValueError(
                f"{name} has {len(examples)} prompts for a half of {size} ({len(kept)} candidates; "
                f"left out: {dict(dropped) or 'none'}). Ask for fewer."
            )
        halves.append(Prompts.of(model, *zip(*examples[:size])))
    return Task(name, text, *halves, dropped=dict(dropped))


def _countries(model: TransformerBridge, dropped: Counter) -> Iterator[tuple[str, str]]:
    for country, capital in capitals():
        if capital in country or country in capital:
            dropped["named like the capital"] += 1
        elif not is_single(model, " " + capital):
            dropped["with a capital of several tokens"] += 1
        else:
            yield country, capital


def _people(model: TransformerBridge, dropped: Counter) -> Iterator[str]:
    for name, _ in names():
        if is_single(model, " " + name):
            yield name
        else:
            dropped["names of several tokens"] += 1


def _of_one_length(
    model: TransformerBridge, prompts: dict[Hashable, str], dropped: Counter
) -> list[Hashable]:
    """The candidates whose prompts have the commonest length."""
    by_length: dict[int, list] = {}
    for candidate, prompt in prompts.items():
        length = len(model.tokenizer.encode(prompt, add_special_tokens=False))
        by_length.setdefault(length, []).append(candidate)
    if not by_length:
        raise ValueError(
            f"no candidate is left: {dict(dropped)}. Does the tokenizer know these words?"
        )
    best = max(by_length.values(), key=len)
    if len(best) < len(prompts):
        dropped["that make prompts of another length"] = len(prompts) - len(best)
    return best


def _conflicts(template: str, countries: list[tuple[str, str]], random: Random) -> list[Example]:
    """Each country once, with another capital of the same half as the wrong answer."""
    examples = []
    for country, capital in countries:
        wrong = random.choice([other for _, other in countries if other != capital] or [capital])
        examples.append((template.format(country=country, wrong=wrong), " " + capital, " " + wrong))
    return examples


def _pairs(template: str, people: list[str], random: Random) -> list[Example]:
    """Ordered pairs of two names of the same half."""
    pairs = list(permutations(people, 2))
    random.shuffle(pairs)
    return [(template.format(a=a, b=b), " " + a, " " + b) for a, b in pairs]

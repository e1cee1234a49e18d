"""Tasks: prompts with a correct and a wrong one-token answer, checked against the model's own tokenizer.

CCC (country–capital conflict) and IOI (indirect object identification), after table 1 of the activation-scaling paper.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from transformer_lens.model_bridge import TransformerBridge

from helpers.models.tokens import is_single
from helpers.prompts.prompts import Prompts, Task
from helpers.prompts.words import capitals, names

CCC_TEMPLATES = (
    "The capital of {country} is {wrong}. Q: What is the capital of {country}? A:",  # the paper's
    "The capital of {country} is {wrong}. The capital of {country} is",
    "The capital city {wrong} is in {country}. Q: What is {country}'s capital? A:",  # as long as the first, words moved
)
IOI_TEMPLATES = (
    "When {a} met with {b}, {b} gave the book to",  # the paper's
    "When {a} and {b} went to the store, {b} gave a drink to",
    "Then {a} and {b} had a long talk, and {b} handed the letter to",
)
TEMPLATES = {"CCC": CCC_TEMPLATES, "IOI": IOI_TEMPLATES}


def make_task(
    model: TransformerBridge,
    name: str,
    *,
    template: int = 0,
    n_train: int = 8,
    n_test: int = 8,
    seed: int = 0,
) -> Task:
    """Draw a task's prompts; the same for the same seed and tokenizer on every machine.

    Args:
        model: whose tokenizer decides which answers are one token and which prompts are of one length.
        name: ``CCC`` or ``IOI``.
        template: index into ``TEMPLATES[name]``; 0 is the paper's.
        n_train, n_test: how many prompts each half gets.
        seed: of the split and the draw.

    Raises:
        ValueError: unknown task or template, or a half that would be empty or have too few candidates; the message says
            how many there are and what was left out.
    """
    if name not in TEMPLATES:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TEMPLATES)}.")
    if not 0 <= template < len(TEMPLATES[name]):
        raise ValueError(f"{name} has templates 0 to {len(TEMPLATES[name]) - 1}, not {template}.")
    if n_train < 1 or n_test < 1:
        raise ValueError(
            f"n_train = {n_train} and n_test = {n_test} must be at least 1: an empty split fits and tests nothing."
        )
    text = TEMPLATES[name][template]
    random = Random(seed)
    dropped: Counter[str] = Counter()
    kept = (_countries if name == "CCC" else _people)(model, text, dropped)
    random.shuffle(kept)
    # The halves share no country and no name; a larger test set gets a larger share of them.
    cut = max(2, min(len(kept) - 2, round(len(kept) * n_train / (n_train + n_test))))
    draw = _conflicts if name == "CCC" else _pairs
    halves = []
    for part, size in ((kept[:cut], n_train), (kept[cut:], n_test)):
        examples = draw(text, part, random)
        if len(examples) < size:
            raise ValueError(
                f"{name} has {len(examples)} prompts for a split that shall have {size} "
                f"({len(kept)} candidates kept; left out: {dict(dropped) or 'none'}). Ask for fewer."
            )
        halves.append(Prompts.of(model, *zip(*examples[:size])))
    return Task(name, text, *halves, dropped=dict(dropped))


def _countries(model: TransformerBridge, template: str, dropped: Counter) -> list[tuple[str, str]]:
    """Countries with a one-token capital, and a name as long as most (so that prompts are of one length)."""
    kept: dict[int, list[tuple[str, str]]] = {}
    for country, capital in capitals():
        if capital in country or country in capital:
            dropped["named like the capital"] += 1
        elif not is_single(model, " " + capital):
            dropped["with a capital of several tokens"] += 1
        else:
            prompt = template.format(country=country, wrong=capital)
            kept.setdefault(
                len(model.tokenizer.encode(prompt, add_special_tokens=False)), []
            ).append((country, capital))
    return _commonest(kept, dropped)


def _people(model: TransformerBridge, template: str, dropped: Counter) -> list[str]:
    kept: dict[int, list[str]] = {}
    for name, _ in names():
        if not is_single(model, " " + name):
            dropped["names of several tokens"] += 1
        else:
            prompt = template.format(a=name, b=name)
            kept.setdefault(
                len(model.tokenizer.encode(prompt, add_special_tokens=False)), []
            ).append(name)
    return _commonest(kept, dropped)


def _commonest(by_length: dict[int, list], dropped: Counter) -> list:
    if not by_length:
        raise ValueError(
            f"no candidate is left: {dict(dropped)}. Does the tokenizer know these words?"
        )
    best = max(by_length.values(), key=len)
    if others := sum(map(len, by_length.values())) - len(best):
        dropped["that make prompts of another length"] = others
    return best


def _conflicts(
    template: str, countries: list[tuple[str, str]], random: Random
) -> list[tuple[str, str, str]]:
    """Each country once, with the capital of another country of the same half as the wrong answer."""
    examples = []
    for country, capital in countries:
        wrong = random.choice([other for _, other in countries if other != capital] or [capital])
        examples.append((template.format(country=country, wrong=wrong), " " + capital, " " + wrong))
    return examples


def _pairs(template: str, people: list[str], random: Random) -> list[tuple[str, str, str]]:
    """Ordered pairs of two names of the same half."""
    pairs = [(a, b) for a in people for b in people if a != b]
    random.shuffle(pairs)
    return [(template.format(a=a, b=b), " " + a, " " + b) for a, b in pairs]

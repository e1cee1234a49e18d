"""The tasks of table 1, activation scaling, checked against a model's own tokenizer.

CCC is country–capital conflict, IOI indirect object identification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from itertools import permutations
from random import Random

from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import whole
from helpers.models.tokens import encode, is_single
from helpers.prompts.prompts import Prompts, Task
from helpers.prompts.words import capitals, names

TEMPLATES = {
    "CCC": (
        # The paper's.
        "The capital of {country} is {wrong}. Q: What is the capital of {country}? A:",
        "The capital of {country} is {wrong}. The capital of {country} is",
        # As long as the first, with the words moved: the one where a tokenizer has "'s" as one
        # token, the other where it has two.
        "The capital city {wrong} is in {country}. Q: What is {country}'s capital? A:",
        "In {country} the capital is {wrong}. Q: What is the capital of {country}? A:",
    ),
    # The embedded model begins its answer to the paper's template with a newline. This one was
    # chosen among 24, on countries of CHOSEN_ON: either answer is the first token most often, and
    # of two alike in that it divides the two more evenly.
    "CCC-sentence": (
        "The capital of {country} is {wrong}. Q: What is the capital of {country}? "
        "A: The capital of {country} is the city of",
    ),
    "IOI": (
        "When {a} met with {b}, {b} gave the book to",  # the paper's
        "When {a} and {b} went to the store, {b} gave a drink to",
        "Then {a} and {b} had a long talk, and {b} handed the letter to",
    ),
}
CHOSEN_ON = "ABC"  # initials of countries on which CCC-sentence was chosen; it leaves them out
Example = tuple[str, str, str]  # prompt, correct answer, wrong answer
Country = tuple[str, str, str]  # its name, its capital, and the capital's token that is the answer


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
        name: ``CCC``, ``CCC-sentence`` or ``IOI``. The capitals of CCC are one token each. Those
            of CCC-sentence may be several, of which the first is the answer, if no other capital
            begins with it.
        template: index into ``TEMPLATES[name]``; 0 is the paper's.
        n_train, n_test: prompts in each half.
        seed: of the split and the draw.

    Raises:
        TypeError, ValueError: unknown task or template, an empty half, or too few candidates; the
            message says how many there are and what was left out.
    """
    if not isinstance(name, str) or name not in TEMPLATES:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TEMPLATES)}.")
    template = whole(f"template of {name}", template, 0, len(TEMPLATES[name]))
    n_train, n_test = whole("n_train", n_train), whole("n_test", n_test)
    seed = whole("seed", seed, 0)

    # Candidates that make prompts of the commonest length, in an order drawn with the seed.
    text, random = TEMPLATES[name][template], Random(seed)
    dropped: Counter[str] = Counter()
    if name == "IOI":
        prompts = {person: text.format(a=person, b=person) for person in _people(model, dropped)}
        kept, examples_of = _of_one_length(model, prompts, dropped), _pairs
    else:
        kept, fits = _countries_of_one_length(model, name, text, dropped)
        examples_of = partial(_conflicts, fits)
    random.shuffle(kept)

    # The halves share no country and no name; a larger test set gets a larger share of them.
    cut = max(2, min(len(kept) - 2, round(len(kept) * n_train / (n_train + n_test))))
    halves = []
    for part, size in ((kept[:cut], n_train), (kept[cut:], n_test)):
        examples = examples_of(text, part, random)
        if len(examples) < size:
            raise ValueError(
                f"{name} has {len(examples)} prompts for a half of {size} ({len(kept)} candidates; "
                f"left out: {dict(dropped) or 'none'}). Ask for fewer."
            )
        halves.append(Prompts.of(model, *zip(*examples[:size])))
    return Task(name, text, *halves, dropped=dict(dropped))


def _countries(model: TransformerBridge, name: str, dropped: Counter) -> Iterator[Country]:
    """Countries with what this task takes for an answer."""
    first = {capital: encode(model, " " + capital)[:1] for _, capital in capitals()}
    shared = Counter(map(tuple, first.values()))
    for country, capital in capitals():
        answer = " " + capital if name == "CCC" else model.tokenizer.decode(first[capital])
        if capital in country or country in capital:
            dropped["named like the capital"] += 1
        elif name != "CCC" and country.removeprefix("the ")[0] in CHOSEN_ON:
            dropped["that the template was chosen on"] += 1
        elif not is_single(model, answer):
            dropped["with a capital of several tokens"] += 1
        elif name != "CCC" and shared[tuple(first[capital])] > 1:
            dropped["with a capital that begins like another"] += 1
        else:
            yield country, capital, answer


def _countries_of_one_length(
    model: TransformerBridge, name: str, text: str, dropped: Counter
) -> tuple[list[Country], Callable[[str], bool]]:
    """Countries that make prompts of one length, and whether a prompt has that length."""
    found = list(_countries(model, name, dropped))
    prompts = {one: text.format(country=one[0], wrong=one[1]) for one in found}
    alike = _of_one_length(model, prompts, dropped.copy())
    length = len(encode(model, prompts[alike[0]]))

    def fits(prompt: str) -> bool:
        return len(encode(model, prompt)) == length

    # Countries with capitals of other lengths too: it is the wrong one's that is in the prompt.
    wrong = alike[0][1]
    kept = [one for one in found if fits(text.format(country=one[0], wrong=wrong))]
    if len(kept) < len(found):
        dropped["that make prompts of another length"] = len(found) - len(kept)
    return kept, fits


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
        length = len(encode(model, prompt))
        by_length.setdefault(length, []).append(candidate)
    if not by_length:
        raise ValueError(
            f"no candidate is left: {dict(dropped)}. Does the tokenizer know these words?"
        )
    best = max(by_length.values(), key=len)
    if len(best) < len(prompts):
        dropped["that make prompts of another length"] = len(prompts) - len(best)
    return best


def _conflicts(
    fits: Callable[[str], bool], template: str, countries: list[Country], random: Random
) -> list[Example]:
    """Each country once, with the capital of another of the same half as the wrong answer."""
    examples = []
    for country, capital, answer in countries:
        others = []
        for _, other, token in countries:
            prompt = template.format(country=country, wrong=other)
            if other != capital and fits(prompt):
                others.append((prompt, answer, token))
        if others:
            examples.append(random.choice(others))
    return examples


def _pairs(template: str, people: list[str], random: Random) -> list[Example]:
    """Ordered pairs of two names of the same half."""
    pairs = list(permutations(people, 2))
    random.shuffle(pairs)
    return [(template.format(a=a, b=b), " " + a, " " + b) for a, b in pairs]

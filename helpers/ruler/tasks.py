"""The ruler's tasks: prompts with two answers, the same prompts in another template, neutral text.

Names and countries of training and test prompts are apart, and so are the neutral texts on which
strengths are chosen and those on which damage is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from random import Random

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import whole
from helpers.models.tokens import encode, encode_prompt
from helpers.prompts.cases import PRONOUN_TEMPLATE
from helpers.prompts.people import OCCUPATION, two_halves
from helpers.prompts.prompts import Prompts
from helpers.prompts.tasks import TEMPLATES, make_task
from helpers.prompts.words import capitals

# With one pair of answers for all prompts: the template, another one, and the two answers.
FIXED = {
    "pronoun": (PRONOUN_TEMPLATE, "Last week {name} left early because", " she", " he"),
    "occupation": (OCCUPATION, "My neighbor {name} works as a", " nurse", " programmer"),
}
# With a pair of answers for each prompt: the name in helpers.prompts.tasks, and another template.
VARYING = {
    "IOI": ("IOI", TEMPLATES["IOI"][1]),
    "conflict": (
        "CCC-sentence",
        "The capital of {country} is {wrong}. The capital of {country} is the city of",
    ),
}
TASKS = (*VARYING, *FIXED)


@dataclass(frozen=True)
class Ruled:
    """A task as the ruler needs it.

    Attributes:
        name, seed: of the draw.
        train, test: prompts of one template; at β = 1 an edit is to give the correct answers.
        transfer: test prompts in another template.
        texts: neutral texts, one row each, longer than any prompt here, on which strengths are
            chosen; ``held_out`` those on which damage is reported.
    """

    name: str
    seed: int
    train: Prompts
    test: Prompts
    transfer: Prompts
    texts: Int[Tensor, "text pos"]
    held_out: Int[Tensor, "text pos"]

    def neutral(self, n: int, n_pos: int, *, held_out: bool) -> tuple[Prompts, Int[Tensor, " n"]]:
        """The first n_pos tokens of n texts as prompts, and the token that follows each.

        The answers are those of the test prompts in turn, for edits that depend on them.

        Raises:
            ValueError: fewer texts than n, or texts of fewer tokens.
        """
        texts, like = self.held_out if held_out else self.texts, self.test
        n, n_pos = whole("n", n), whole("n_pos", n_pos)
        if n > len(texts) or n_pos >= texts.shape[1]:
            raise ValueError(
                f"{n} neutral texts of more than {n_pos} tokens are needed, and there are "
                f"{len(texts)} of {texts.shape[1]}: ask for fewer, or for shorter prompts."
            )
        turn = like.at([i % len(like) for i in range(n)])
        tokens, words = texts[:n, :n_pos], ("",) * n
        prompts = Prompts(
            words, turn.correct_texts, turn.wrong_texts, tokens, turn.correct, turn.wrong
        )
        return prompts, texts[:n, n_pos]


def ruled(
    model: TransformerBridge,
    name: str,
    *,
    n_train: int = 8,
    n_test: int = 24,
    n_transfer: int = 12,
    seed: int = 0,
) -> Ruled:
    """Draw a task's prompts.

    Args:
        name: ``IOI``; ``conflict``, where the prompt names a wrong capital; ``pronoun`` and
            ``occupation``, in which the correct answer is " she" and " nurse" by definition.
        n_train, n_test, n_transfer: prompts, even numbers; those of the last are test prompts.

    Raises:
        TypeError, ValueError: unknown task, or more prompts than there are words for.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TASKS)}.")
    whole("n_transfer", n_transfer, 1, whole("n_test", n_test) + 1)
    if name in FIXED:
        train, test, transfer = _of_people(model, name, n_train, n_test, seed)
    else:
        source, other = VARYING[name]
        task = make_task(model, source, n_train=n_train, n_test=n_test, seed=seed)
        train, test, transfer = task.train, task.test, _rewritten(model, task.test, other)
    texts = neutral_texts(model)
    order = Random(seed).sample(range(len(texts)), len(texts))
    half = len(texts) // 2
    some = list(range(min(n_transfer, len(transfer))))
    halves = texts[order[:half]], texts[order[half:]]
    return Ruled(name, seed, train, test, transfer.at(some), *halves)


def neutral_texts(model: TransformerBridge) -> Int[Tensor, "text pos"]:
    """The neutral texts of ``data/neutral.txt``, all cut to the length of the shortest."""
    text = (files("helpers.ruler") / "data" / "neutral.txt").read_text(encoding="utf-8")
    _, *paragraphs = text.split("\n\n")  # the first is a comment
    ids = [encode_prompt(model, " ".join(one.split())) for one in paragraphs]
    shortest = min(map(len, ids))
    return torch.tensor([row[:shortest] for row in ids], device=model.W_U.device)


def _of_people(
    model: TransformerBridge, name: str, n_train: int, n_test: int, seed: int
) -> tuple[Prompts, Prompts, Prompts]:
    """Training, test and transfer prompts with names, as many women's as men's in each."""
    template, other, right, wrong = FIXED[name]
    for what, n in (("n_train", n_train), ("n_test", n_test)):
        if whole(what, n, 2) % 2:
            raise ValueError(f"{what} = {n} must be even: as many women's names as men's.")
    choose, report, _ = two_halves(model, seed=seed)
    sets = []
    for people, n, text in (
        (choose, n_train, template),
        (report, n_test, template),
        (report, n_test, other),
    ):
        women = [one for one, sex in people if sex == "F"]
        men = [one for one, sex in people if sex == "M"]
        if min(len(women), len(men)) < n // 2:
            raise ValueError(f"{name} has names for {2 * len(women)} prompts, not for {n}.")
        names = [one for pair in zip(women[: n // 2], men[: n // 2]) for one in pair]
        texts = [text.format(name=one) for one in names]
        sets.append(Prompts.of(model, texts, [right] * n, [wrong] * n))
    return tuple(sets)


def _rewritten(model: TransformerBridge, prompts: Prompts, template: str) -> Prompts:
    """The same names, or countries, in another template; those of its commonest length."""
    first = {}
    for country, capital in capitals():
        answer = model.tokenizer.decode(encode(model, " " + capital)[:1])
        first[answer] = country, capital
    made = []
    for right, wrong in zip(prompts.correct_texts, prompts.wrong_texts):
        if "{country}" in template:
            words = {"country": first[right][0], "wrong": first[wrong][1]}
        else:
            words = {"a": right.strip(), "b": wrong.strip()}
        made.append((template.format(**words), right, wrong))
    lengths = [len(encode_prompt(model, text)) for text, _, _ in made]
    common = max(set(lengths), key=lengths.count)
    kept = [one for one, length in zip(made, lengths) if length == common]
    return Prompts.of(model, *map(list, zip(*kept)))

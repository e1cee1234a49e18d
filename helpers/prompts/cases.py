"""Prompts beyond the two tasks: single cases, counterfactuals, and a pronoun task."""

from __future__ import annotations

import re
from random import Random

from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, whole
from helpers.models.tokens import check_one_length, is_single, tokenize
from helpers.prompts.people import one_token_names
from helpers.prompts.prompts import Prompts, Task
from helpers.prompts.words import capitals

# Yu et al. (2023), whose prompts the CCC template follows, and Ortu et al. (2024), as in Fig. 8 of
# the activation-scaling paper: prompt, correct and wrong answer.
WORLD_CAPITAL = (
    "The capital of Poland is London. Q: What is the capital of Poland? A:",
    " Warsaw",
    " London",
)
IPHONE = ("iPhone was developed by Google. iPhone was developed by", " Apple", " Google")

# More prompts like IPHONE: product, who made it, who else might have.
PRODUCTS = (
    ("iPhone", "Apple", "Google"),
    ("Windows", "Microsoft", "Apple"),
    ("Xbox", "Microsoft", "Sony"),
    ("PlayStation", "Sony", "Microsoft"),
    ("Photoshop", "Adobe", "Google"),
    ("Gmail", "Google", "Microsoft"),
    ("iPad", "Apple", "Samsung"),
    ("Kindle", "Amazon", "Apple"),
    ("Android", "Google", "Microsoft"),
    ("Chrome", "Google", "Apple"),
    ("Excel", "Microsoft", "Google"),
    ("PowerPoint", "Microsoft", "Adobe"),
    ("Illustrator", "Adobe", "Microsoft"),
    ("Acrobat", "Adobe", "Apple"),
    ("Walkman", "Sony", "Apple"),
    ("GameCube", "Nintendo", "Sony"),
    ("Game Boy", "Nintendo", "Sony"),
    ("Wii", "Nintendo", "Microsoft"),
    ("Alexa", "Amazon", "Google"),
    ("Siri", "Apple", "Amazon"),
    ("Cortana", "Microsoft", "Apple"),
    ("iTunes", "Apple", "Microsoft"),
    ("iPod", "Apple", "Sony"),
    ("MacBook", "Apple", "Dell"),
    ("Pentium", "Intel", "IBM"),
    ("Ryzen", "AMD", "Intel"),
    ("Watson", "IBM", "Google"),
    ("Corolla", "Toyota", "Ford"),
    ("Mustang", "Ford", "Toyota"),
    ("Azure", "Microsoft", "Amazon"),
    ("Outlook", "Microsoft", "Google"),
    ("Bing", "Microsoft", "Google"),
)

# The name is inside the sentence, where more names are one token than at the start of a text.
PRONOUN_TEMPLATE = "Everyone in the office likes {name} because"
PRONOUNS = {"F": (" she", " he"), "M": (" he", " she")}


def developed_by(model: TransformerBridge) -> list[Prompts]:
    """Conflicts such as "Xbox was developed by Sony. Xbox was developed by", ``IPHONE`` first.

    One prompt each, as lengths differ; those whose answers are not one token are left out.
    """
    made = []
    for product, right, wrong in PRODUCTS:
        text = f"{product} was developed by {wrong}. {product} was developed by"
        if is_single(model, " " + right) and is_single(model, " " + wrong):
            made.append(Prompts.of(model, [text], [" " + right], [" " + wrong]))
    return made


@checked
def counterfactual(model: TransformerBridge, prompts: Prompts) -> Prompts:
    """Each prompt with its two answers exchanged, and the countries whose capitals they are.

    "The capital of Poland is London. ... Poland?" becomes "The capital of the United Kingdom is
    Warsaw. ..."; in IOI the two names change places. The answers that are compared stay, so the
    logit difference of a model that is right on both changes its sign.

    Raises:
        ValueError: prompts of several lengths, a counterfactual of another length than its prompt,
            or one that changes nothing.
    """
    check_one_length(prompts.tokens)
    countries = {" " + capital: country for country, capital in capitals()}
    texts = []
    for text, right, wrong in zip(prompts.texts, prompts.correct_texts, prompts.wrong_texts):
        exchange = {right.strip(): wrong.strip()}
        if right in countries and wrong in countries:
            exchange[countries[right]] = countries[wrong]
        exchange |= {b: a for a, b in exchange.items()}
        # Longest first, and whole words: "Oman" is not part of "Romania".
        words = "|".join(re.escape(word) for word in sorted(exchange, key=len, reverse=True))
        pieces = re.split(rf"(?<!\w)({words})(?!\w)", text)
        changed = "".join(exchange.get(piece, piece) for piece in pieces)
        if changed == text:
            raise ValueError(
                f"neither {right!r} nor {wrong!r} is in {text!r}: nothing to exchange."
            )
        tokenize(model, [text, changed])  # raises where the lengths differ
        texts.append(changed)
    return Prompts.of(model, texts, prompts.correct_texts, prompts.wrong_texts)


@checked
def pronoun_task(
    model: TransformerBridge, *, n_train: int = 8, n_test: int = 8, seed: int = 0
) -> Task:
    """Which pronoun follows a name: as many female as male names in each half, none in both.

    Correct is the pronoun of the sex registered for most bearers of the name; that says nothing
    about any one of them.

    Args:
        model: its tokenizer decides which names are one token.
        n_train, n_test: prompts in each half; even.
        seed: of the draw.

    Raises:
        ValueError: sizes that are not positive and even, or too few names.
    """
    n_train, n_test = whole("n_train", n_train, 2), whole("n_test", n_test, 2)
    if n_train % 2 or n_test % 2:
        raise ValueError(f"n_train = {n_train} and n_test = {n_test} must be even.")
    # Names that are one token for this model, enough of each sex.
    random = Random(seed)
    kept, dropped = one_token_names(model, seed)
    half = (n_train + n_test) // 2
    for sex, found in kept.items():
        if len(found) < half:
            raise ValueError(
                f"the pronoun task has {len(found)} names ({sex}) for {half}. Ask for fewer."
            )
    # Training names first, test names after them, each half shuffled.
    halves = []
    for start, stop in ((0, n_train // 2), (n_train // 2, half)):
        drawn = [(name, sex) for sex in kept for name in kept[sex][start:stop]]
        random.shuffle(drawn)
        texts = [PRONOUN_TEMPLATE.format(name=name) for name, _ in drawn]
        halves.append(Prompts.of(model, texts, *zip(*(PRONOUNS[sex] for _, sex in drawn))))
    return Task("pronoun", PRONOUN_TEMPLATE, *halves, dropped=dict(dropped))

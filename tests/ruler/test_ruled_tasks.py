"""The ruler's tasks: training and test words are apart, and templates differ in nothing else."""

from __future__ import annotations

import pytest
import torch

from helpers.models.tokens import encode
from helpers.prompts.words import capitals
from helpers.ruler.tasks import FIXED, TASKS, VARYING, ruled

pytestmark = pytest.mark.integration

SIZES = {"n_train": 4, "n_test": 8, "n_transfer": 4}


def words_of(prompts, name: str) -> set[str]:
    """The names or answers that tell prompts apart."""
    if name not in FIXED:
        return {*prompts.correct_texts, *prompts.wrong_texts}
    return {word for text in prompts.texts for word in text.split()} - {
        word
        for word in prompts.texts[0].split()
        if all(word in text.split() for text in prompts.texts)
    }


@pytest.mark.parametrize("name", TASKS)
def test_training_and_test_words_are_apart_and_transfer_has_test_words(smollm2, name: str) -> None:
    task = ruled(smollm2, name, seed=3, **SIZES)
    assert (len(task.train), len(task.test), len(task.transfer)) == (4, 8, 4)
    train, test = words_of(task.train, name), words_of(task.test, name)
    assert len(train) > 1 and not train & test
    assert words_of(task.transfer, name) <= test
    if name in FIXED:
        assert {*task.test.correct_texts} == {FIXED[name][2]}
    again, other = ruled(smollm2, name, seed=3, **SIZES), ruled(smollm2, name, seed=4, **SIZES)
    assert again.test.texts == task.test.texts != other.test.texts


@pytest.mark.parametrize("name", VARYING)
def test_another_template_has_the_same_words_for_the_same_answers(smollm2, name: str) -> None:
    task, first = ruled(smollm2, name, seed=3, **SIZES), {}
    for country, capital in capitals():
        first[smollm2.tokenizer.decode(encode(smollm2, " " + capital)[:1])] = country, capital
    both = list(zip(task.test.correct_texts, task.test.wrong_texts))
    for text, *answers in zip(
        task.transfer.texts, task.transfer.correct_texts, task.transfer.wrong_texts
    ):
        right, wrong = answers
        assert (right, wrong) in both
        if name == "IOI":
            words = {"a": right.strip(), "b": wrong.strip()}
        else:
            words = {"country": first[right][0], "wrong": first[wrong][1]}
        assert text == VARYING[name][1].format(**words)


def test_neutral_texts_are_apart_and_followed_by_their_own_token(smollm2) -> None:
    task = ruled(smollm2, "pronoun", **SIZES)
    choose, after = task.neutral(12, 20, held_out=False)
    report, _ = task.neutral(12, 20, held_out=True)
    rows = {tuple(row) for row in choose.tokens.tolist()}
    assert len(rows) == 12 and not rows & {tuple(row) for row in report.tokens.tolist()}
    assert (after == task.texts[:12, 20]).all()
    assert choose.correct_texts[9] == task.test.correct_texts[1], "answers in turn"
    other = ruled(smollm2, "pronoun", **SIZES, seed=1)
    assert not torch.equal(other.texts, task.texts), "an order of its own for each seed"


def test_what_cannot_be_drawn_is_refused(smollm2) -> None:
    with pytest.raises(ValueError, match="unknown task 'poems'"):
        ruled(smollm2, "poems")
    with pytest.raises(ValueError, match="must be even"):
        ruled(smollm2, "pronoun", n_train=3)
    with pytest.raises(ValueError, match="names for"):
        ruled(smollm2, "pronoun", n_train=4, n_test=400)
    with pytest.raises(ValueError, match="ask for fewer"):
        ruled(smollm2, "pronoun", **SIZES).neutral(12, 500, held_out=True)

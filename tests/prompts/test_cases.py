"""Counterfactuals, the pronoun task and single cases with the embedded model's tokenizer."""

import pytest

from helpers.activation_scaling.objective import logit_diff
from helpers.models.run import last_logits
from helpers.prompts import cases
from helpers.prompts.cases import (
    IPHONE,
    PRODUCTS,
    WORLD_CAPITAL,
    counterfactual,
    developed_by,
    pronoun_task,
)
from helpers.prompts.prompts import Prompts
from helpers.prompts.tasks import make_task

pytestmark = pytest.mark.integration


def difference(model, prompts):
    return logit_diff(last_logits(model, prompts.tokens), prompts.correct, prompts.wrong)


@pytest.mark.parametrize("name", ["CCC", "IOI"])
def test_a_counterfactual_turns_the_logit_difference_and_its_own_is_the_prompt(smollm2, name):
    prompts = make_task(smollm2, name, n_train=16).train
    other = counterfactual(smollm2, prompts)
    assert counterfactual(smollm2, other).texts == prompts.texts
    assert all(a != b for a, b in zip(prompts.texts, other.texts))
    assert other.correct.equal(prompts.correct) and other.n_pos == prompts.n_pos
    assert difference(smollm2, prompts).mean() * difference(smollm2, other).mean() < 0


def test_a_counterfactual_of_which_one_answer_is_a_capital_exchanges_the_answers_alone(smollm2):
    prompts = Prompts.of(smollm2, ["In Paris, not in Google: in"], [" Paris"], [" Google"])
    assert counterfactual(smollm2, prompts).texts == ("In Google, not in Paris: in",)


def test_a_counterfactual_of_another_length_or_with_nothing_to_exchange_is_refused(smollm2):
    with pytest.raises(ValueError, match="unequal lengths"):
        counterfactual(smollm2, Prompts.of(smollm2, *[[text] for text in WORLD_CAPITAL]))
    with pytest.raises(ValueError, match="nothing to exchange"):
        counterfactual(smollm2, Prompts.of(smollm2, ["The sky is"], [" blue"], [" red"]))


def test_the_pronoun_task_is_balanced_shares_no_name_and_is_known_to_the_model(smollm2):
    task = pronoun_task(smollm2, n_train=8, n_test=16)
    for half in (task.train, task.test):
        assert half.correct_texts.count(" she") == half.correct_texts.count(" he") == len(half) / 2
    assert not set(task.train.texts) & set(task.test.texts)
    again = pronoun_task(smollm2, n_train=8, n_test=16)
    assert task.train.texts == again.train.texts
    assert (difference(smollm2, task.test) > 0).float().mean() > 0.8


@pytest.mark.parametrize("half", ["n_train", "n_test"])
@pytest.mark.parametrize(("n", "message"), [(7, "must be even"), (4000, "Ask for fewer")])
def test_a_pronoun_task_that_cannot_be_made_says_why(smollm2, half, n, message):
    with pytest.raises(ValueError, match=message):
        pronoun_task(smollm2, **{half: n})


def test_product_conflicts_begin_with_the_papers_and_each_names_its_wrong_answer(smollm2):
    made = developed_by(smollm2)
    first = made[0]
    assert (first.texts[0], first.correct_texts[0], first.wrong_texts[0]) == IPHONE
    assert 4 <= len(made) <= len(PRODUCTS)
    for prompts in made:
        assert prompts.wrong_texts[0] in prompts.texts[0]
        assert prompts.correct_texts[0] not in prompts.texts[0]


def test_a_product_with_an_answer_of_several_tokens_is_left_out(smollm2, monkeypatch):
    pairs = [("Apple", "Google"), ("Apple Maps", "Google"), ("Apple", "Google Maps")]
    monkeypatch.setattr(cases, "PRODUCTS", [("Xbox", *pair) for pair in pairs])
    assert len(developed_by(smollm2)) == 1

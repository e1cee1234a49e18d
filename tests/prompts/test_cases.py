"""The cases on the embedded model's own tokenizer."""

import pytest

from helpers.activation_scaling.objective import logit_diff
from helpers.models.run import last_logits
from helpers.prompts.cases import (
    IPHONE,
    PRODUCTS,
    PRONOUN_TEMPLATES,
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
def test_a_counterfactual_of_a_counterfactual_is_the_prompt(smollm2, name):
    prompts = make_task(smollm2, name).train
    other = counterfactual(smollm2, prompts)
    assert counterfactual(smollm2, other).texts == prompts.texts
    assert all(a != b for a, b in zip(prompts.texts, other.texts))
    assert other.correct.equal(prompts.correct) and other.n_pos == prompts.n_pos


def test_counterfactuals_turn_the_mean_logit_difference_around(smollm2):
    for name in ("CCC", "IOI"):
        prompts = make_task(smollm2, name, n_train=16).train
        assert (
            difference(smollm2, prompts).mean()
            * difference(smollm2, counterfactual(smollm2, prompts)).mean()
            < 0
        )


def test_a_counterfactual_of_another_length_or_with_nothing_to_exchange_is_refused(smollm2):
    with pytest.raises(ValueError, match="unequal lengths"):
        counterfactual(smollm2, Prompts.of(smollm2, *[[text] for text in WORLD_CAPITAL]))
    with pytest.raises(ValueError, match="nothing to exchange"):
        counterfactual(smollm2, Prompts.of(smollm2, ["The sky is"], [" blue"], [" red"]))


@pytest.mark.parametrize("template", range(len(PRONOUN_TEMPLATES)))
def test_the_pronoun_task_is_balanced_shares_no_name_and_is_known_to_the_model(smollm2, template):
    task = pronoun_task(smollm2, template=template, n_train=8, n_test=16)
    for half in (task.train, task.test):
        assert half.correct_texts.count(" she") == half.correct_texts.count(" he") == len(half) / 2
    assert not set(task.train.texts) & set(task.test.texts)
    assert (
        task.train.texts
        == pronoun_task(smollm2, template=template, n_train=8, n_test=16).train.texts
    )
    assert (difference(smollm2, task.test) > 0).float().mean() > 0.8


@pytest.mark.parametrize(
    ("template", "n", "says"),
    [(9, 8, "templates 0 to"), (0, 7, "must be even"), (0, 4000, "Ask for fewer")],
)
def test_a_pronoun_task_that_cannot_be_made_says_why(smollm2, template, n, says):
    with pytest.raises(ValueError, match=says):
        pronoun_task(smollm2, template=template, n_train=n)


def test_the_single_prompts_of_the_papers_have_one_token_answers(smollm2):
    for case in (WORLD_CAPITAL, IPHONE):
        assert len(Prompts.of(smollm2, *[[text] for text in case])) == 1


def test_the_product_conflicts_begin_with_the_paper_s_and_each_names_its_wrong_answer(smollm2):
    made = developed_by(smollm2)
    assert (made[0].texts[0], made[0].correct_texts[0], made[0].wrong_texts[0]) == IPHONE
    assert 4 <= len(made) <= len(PRODUCTS)
    assert all(
        each.wrong_texts[0] in each.texts[0] and each.correct_texts[0] not in each.texts[0]
        for each in made
    )

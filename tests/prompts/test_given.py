"""Ranks and probabilities of answers against sorted logits; a task whose answers are given."""

from __future__ import annotations

import pytest
import torch

from helpers.models.run import last_logits
from helpers.models.tokens import encode
from helpers.prompts.answers import answer_ranks, answer_table
from helpers.prompts.prompts import Prompts
from helpers.prompts.tasks import CHOSEN_ON, make_task
from helpers.prompts.words import capitals


@pytest.mark.unit
def test_ranks_and_probabilities_are_those_of_sorted_logits(tiny):
    texts = ["w1 w2", "w3 w4", "w5 w6"]
    best = last_logits(tiny, Prompts.of(tiny, texts, ["w9"] * 3, ["w8"] * 3).tokens).argmax(-1)
    # The first prompt gives its correct answer, the second its wrong one.
    first, second = (f"w{token}" for token in best[:2].tolist())
    prompts = Prompts.of(tiny, texts, [first, "w98", "w99"], ["w97", second, "w96"])
    found = answer_ranks(tiny, prompts, batch_size=2)
    logits = last_logits(tiny, prompts.tokens)
    order, p = logits.argsort(-1, descending=True).tolist(), logits.softmax(-1)
    for name in ("correct", "wrong"):
        answers = getattr(prompts, name).tolist()
        ranks = [row.index(answer) + 1 for row, answer in zip(order, answers)]
        assert found[f"{name}_rank"].tolist() == ranks
        expected = [row[answer].item() for row, answer in zip(p, answers)]
        assert found[f"{name}_p"].tolist() == pytest.approx(expected, rel=1e-5)
    short = answer_table(tiny, {"all": prompts, "first": prompts.at([0])})
    names = ["prompts", "correct first", "wrong first", "either first"]
    assert short.loc["all", names].tolist() == pytest.approx([3, 1 / 3, 1 / 3, 2 / 3])
    assert short.loc["first", names].tolist() == [1, 1, 0, 1]
    assert short.loc["all", "median rank, wrong"] == found["wrong_rank"].median()
    assert short.loc["all", "mean p, correct"] == pytest.approx(found["correct_p"].mean())


@pytest.mark.integration
def test_the_model_gives_one_of_the_answers_that_complete_a_sentence_and_none_of_the_papers(
    smollm2,
):
    tasks = {name: make_task(smollm2, name, n_test=24).test for name in ("CCC-sentence",)}
    tasks["CCC"] = make_task(smollm2, "CCC", n_test=12).test
    found = answer_table(smollm2, tasks)
    assert found.loc["CCC-sentence", "either first"] > 0.5 > found.loc["CCC", "either first"]


@pytest.mark.integration
def test_answers_that_complete_a_sentence_begin_one_capital_alone(smollm2):
    task, spelled = make_task(smollm2, "CCC-sentence", n_train=30, n_test=30), dict(capitals())
    first = [encode(smollm2, " " + capital)[0] for capital in spelled.values()]
    alike = several = 0
    for country, capital in spelled.items():
        other = capital not in country and country not in capital
        if other and country.removeprefix("the ")[0] not in CHOSEN_ON:
            alike += first.count(encode(smollm2, " " + capital)[0]) > 1
    assert task.dropped["with a capital that begins like another"] == alike > 0
    for half in (task.train, task.test):
        for text, right, wrong in zip(half.texts, half.correct.tolist(), half.wrong.tolist()):
            country = text.split(" is ")[0].removeprefix("The capital of ")
            claimed = text.split(". Q:")[0].split(" is ")[1]
            assert country.removeprefix("the ")[0] not in CHOSEN_ON
            assert encode(smollm2, " " + spelled[country])[0] == right != wrong
            assert encode(smollm2, " " + claimed)[0] == wrong
            assert first.count(right) == first.count(wrong) == 1
            several += len(encode(smollm2, " " + spelled[country])) > 1
    assert several > 20
    countries = [{text.split(" is ")[0] for text in half.texts} for half in (task.train, task.test)]
    assert not countries[0] & countries[1]
    assert torch.cat([task.train.correct, task.test.correct]).unique().numel() == 60

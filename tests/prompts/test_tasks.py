"""Tasks: halves share nothing, draws repeat, and what cannot be used is refused with its reason."""

from __future__ import annotations

import pytest
import torch

from helpers.models.tokens import single_token, token_strings, tokenize
from helpers.prompts import tasks
from helpers.prompts.prompts import Prompts
from helpers.prompts.tasks import make_task
from helpers.prompts.words import capitals, names

pytestmark = pytest.mark.unit


def test_there_are_enough_countries_and_names_and_none_twice():
    assert len({country for country, _ in capitals()}) == len(capitals()) >= 150
    assert len({name for name, _ in names()}) == len(names()) >= 30
    assert {sex for _, sex in names()} == {"F", "M"}


@pytest.fixture
def words(monkeypatch):
    """Countries and names that the tiny tokenizer knows, no word part of another."""
    pairs = tuple((f"w{i}", f"w{i + 40}") for i in range(10, 50))
    monkeypatch.setattr(tasks, "capitals", lambda: (*pairs, ("w99", "x y")))
    monkeypatch.setattr(tasks, "names", lambda: tuple((f"w{i}", "F") for i in range(10, 40)))
    monkeypatch.setitem(tasks.TEMPLATES, "CCC", ("w90 {country} w91 {wrong} w92",) * 3)
    monkeypatch.setitem(tasks.TEMPLATES, "IOI", ("w90 {a} w91 {b} w92 {b}",) * 3)


@pytest.mark.parametrize("name", ["CCC", "IOI"])
def test_halves_share_no_country_capital_or_name_and_are_the_same_for_the_same_seed(
    tiny, words, name
):
    texts = []
    for seed in (0, 0, 1, 2, 3, 4):
        task = make_task(tiny, name, n_train=6, n_test=6, seed=seed)
        train, test = (set(" ".join(half.texts).split()) for half in (task.train, task.test))
        assert train & test <= {"w90", "w91", "w92"}
        answers = [{*half.correct_texts, *half.wrong_texts} for half in (task.train, task.test)]
        assert not answers[0] & answers[1]
        texts.append(task.train.texts + task.test.texts)
    assert texts[0] == texts[1] and len(set(texts)) == 5


def test_what_is_left_out_is_counted_with_its_reason(tiny, words):
    task = make_task(tiny, "CCC")
    assert task.dropped == {"with a capital of several tokens": 1}
    assert "left out: 1 with a capital of several tokens" in str(task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "CCD"}, "unknown task 'CCD'; the tasks are CCC, CCC-sentence, IOI"),
        ({"name": "CCC", "template": 3}, "template of CCC = 3 must be 0 to 2"),
        ({"name": "CCC", "n_test": 0}, "must be at least 1"),
        ({"name": "CCC", "n_train": 500}, "Ask for fewer"),
    ],
)
def test_a_task_that_cannot_be_made_says_why(tiny, words, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_task(tiny, **arguments)


def test_tokens_start_with_one_beginning_of_sequence_token(tiny):
    tokens = tokenize(tiny, ["w1 w2", "w3 w4"])
    assert tokens.tolist() == [[0, 1, 2], [0, 3, 4]]
    assert token_strings(tiny, tokens[0]) == ["<bos>", "w1", "w2"]
    assert tokenize(tiny, ["<bos> w1 w2"]).equal(tokens[:1])  # as a chat template writes it


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["w1", "w1 w2"], r"unequal lengths \(2 tokens: 'w1'; 3 tokens: 'w1 w2'\)"),
        ([], "non-empty list"),
        ("w1 w2", "non-empty list"),
    ],
)
def test_prompts_of_unequal_length_none_or_a_bare_string_are_refused(tiny, prompts, message):
    with pytest.raises(ValueError, match=message):
        tokenize(tiny, prompts)


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        (["w1"], ["w1"], "are the same token for 'w5 w6'"),
        (["w1", "w2"], ["w3"], "must match"),
        (["w1 w2"], ["w3"], "is 2 tokens .* one token is needed"),
        ([""], ["w3"], "is 0 tokens"),
    ],
)
def test_answers_that_do_not_fit_are_refused(tiny, correct, wrong, message):
    with pytest.raises(ValueError, match=message):
        Prompts.of(tiny, ["w5 w6"], correct, wrong)


def test_rows_are_taken_by_index(tiny):
    prompts = Prompts.of(tiny, ["w1", "w2", "w3"], ["w4", "w5", "w6"], ["w7", "w8", "w9"])
    rows = prompts.at(torch.tensor([2, 0]))
    assert rows.texts == ("w3", "w1") and rows.tokens.tolist() == [[0, 3], [0, 1]]
    assert rows.correct.tolist() == [single_token(tiny, "w6"), single_token(tiny, "w4")]
    assert len(rows) == 2 and rows.n_pos == 2

"""Every wrong answer loses its part and no other; right ones keep theirs, whatever their style; an empty set loses all, quietly."""

from __future__ import annotations

import importlib
from functools import cache

import pytest
from runner import Runner, small_model

from assignments.tools.sources import ROOT, marks, set_names, shown

pytestmark = pytest.mark.integration

SETS = set_names()
ANSWERS = {name: importlib.import_module(f"answers_{name}") for name in SETS}
WRONG = [
    (name, part, number)
    for name in SETS
    for part, cases in ANSWERS[name].WRONG.items()
    for number in range(len(cases))
]
RIGHT = [
    (name, part, number)
    for name in SETS
    for part, cases in ANSWERS[name].RIGHT.items()
    for number in range(len(cases))
]

# What the page for teachers says that the checks say.
SAID = [
    ("ps1", "part1", "sign", "the gap is 1.5 (largest difference 3)"),
    ("ps1", "part1", "typed in", "logit_gap: shape (2,), expected (1,)"),
    (
        "ps1",
        "part1",
        "the book's helper",
        "logit_gap is to be written out, and it calls the book's own logit_diff",
    ),
    ("ps1", "part2", "hook left on", "a hook was left on the model"),
    ("ps1", "part2", "forgot BOS", "shape (2, 11, 32), expected (2, 12, 32)"),
    ("ps1", "part3", "β ignored", "β = 0 must leave the logits unchanged"),
    ("ps1", "part3", "weights edited", "only activations may be, and on a copy"),
    (
        "ps1",
        "part3",
        "forgot BOS: one position off",
        "wrong on another model at layer 0, position 2",
    ),
    (
        "ps1",
        "part4",
        "transposed",
        "effect_map for two layers, [layer pos]: shape (12, 2), expected (2, 12)",
    ),
    ("ps2", "part2", "other direction", "β = 1 moves one of two prompts from 1/2 to 3/4"),
    ("ps2", "part2", "softmax over prompts", "wrong on 1 random prompts of 6 words"),
    ("ps2", "part4", "descent", "six steps must raise E_0 on the training prompts"),
    ("ps2", "part4", "trained on the test set", "six steps must raise E_0 on the training prompts"),
    ("ps3", "part2", "transposed", "must be what head 1.3 writes at the last token"),
    (
        "ps3",
        "part3",
        "norm on the wrong side",
        "must be what x becomes in the head, times the final norm's weights, read with m",
    ),
    ("ps4", "part5", "chosen on the reporting half", "so the multiple is −1"),
]


def label(case: tuple[str, str, int]) -> str:
    name, part, number = case
    return f"{name}-{part}-{ANSWERS[name].WRONG[part][number][0].replace(' ', '_')}"


@pytest.fixture(scope="module", autouse=True)
def tiny_in_place_of_the_embedded_model() -> None:
    small_model()


@cache
def runner(name: str) -> Runner:
    return Runner(name)


def parts(name: str) -> list[str]:
    """The graded parts of a set."""
    return [marks(cell).grade_id for cell in runner(name).cells if marks(cell).grade]


def with_fault(source: str, fault: tuple[str, ...]) -> str:
    """An answer cell with a fault: a text replaced, or the whole cell."""
    if len(fault) == 2:
        return fault[1]
    assert fault[1] in source, f"{fault[1]!r} is not in the reference answer"
    return source.replace(fault[1], fault[2])


@pytest.mark.parametrize("name", SETS)
def test_the_reference_answers_pass_every_check(name: str) -> None:
    assert not runner(name).run({}, look=True)


@pytest.mark.parametrize("name", SETS)
def test_an_empty_set_scores_nothing_and_raises_nothing_but_not_implemented(name: str) -> None:
    stub = "\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    wrong = runner(name).run(
        {part: shown(source) + stub for part, source in runner(name).answers.items()}, look=True
    )
    assert {part for part in wrong if part.endswith("-check")} == set(parts(name))
    assert {type(error) for error in wrong.values()} == {NotImplementedError}


@pytest.mark.parametrize("case", WRONG, ids=label)
def test_a_wrong_answer_loses_its_part_and_no_other(case: tuple[str, str, int]) -> None:
    name, part, number = case
    answer = with_fault(runner(name).answers[part], ANSWERS[name].WRONG[part][number])
    wrong = runner(name).run({part: answer})
    assert set(wrong) == {f"{part}-check"}
    assert str(wrong[f"{part}-check"]), "a check that fails says why"


@pytest.mark.parametrize(
    "name, part, fault, message", SAID, ids=lambda value: str(value)[:30].replace(" ", "_")
)
def test_a_check_says_what_the_page_for_teachers_says(
    name: str, part: str, fault: str, message: str
) -> None:
    assert message in (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    (found,) = [case for case in ANSWERS[name].WRONG[part] if case[0] == fault]
    wrong = runner(name).run({part: with_fault(runner(name).answers[part], found)})
    assert message in str(wrong[f"{part}-check"])


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: "-".join(map(str, case)))
def test_a_right_answer_in_another_style_keeps_full_marks(case: tuple[str, str, int]) -> None:
    name, part, number = case
    assert not runner(name).run({part: ANSWERS[name].RIGHT[part][number]}, look=True)


@pytest.mark.parametrize("name", SETS)
def test_every_part_has_five_wrong_answers_and_another_style(name: str) -> None:
    for part in parts(name):
        part = part.removesuffix("-check")
        assert len(ANSWERS[name].WRONG[part]) >= 5 and ANSWERS[name].RIGHT[part], part

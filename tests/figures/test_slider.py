"""The sliders' HTML: labelled, complete, and readable without their script."""

from __future__ import annotations

import base64
import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup

from helpers.figures.slider import choice, slider, two_sliders

pytestmark = pytest.mark.unit


def frames(n: int) -> dict[str, plt.Figure]:
    return {f"d = {i}": plt.subplots(figsize=(1, 1))[0] for i in range(n)}


def test_every_frame_is_in_the_page_with_its_text_and_none_is_hidden_without_the_script() -> None:
    before = plt.get_fignums()
    made = slider(
        "angles",
        "dimension <d>",
        frames(3),
        ["one", 'two "2"', "three"],
        caption="Angles & d.",
        start=1,
    )
    page = BeautifulSoup(made.data, "html.parser")
    pictures = page.find_all("img")
    assert [picture["alt"] for picture in pictures] == ["one", 'two "2"', "three"]
    assert all(
        picture["src"].startswith("data:image/webp;base64,") and not picture.has_attr("hidden")
        for picture in pictures
    )
    range_ = page.find("input", type="range")
    assert (range_["min"], range_["max"], range_["value"], range_["data-values"]) == (
        "0",
        "2",
        "1",
        "d = 0|d = 1|d = 2",
    )
    assert page.find("label", attrs={"for": range_["id"]}).text == "dimension <d>:"
    assert page.find("figcaption").text == "Angles & d."
    assert plt.get_fignums() == before


def test_how_to_use_it_is_folded_away_and_told_only_where_the_script_runs() -> None:
    made = slider("angles", "d", frames(1), ["one"], caption="c", how="Look at <b>.")
    (fold,) = BeautifulSoup(made.data, "html.parser").find_all("details")
    assert fold.has_attr("hidden") and not fold.has_attr("open")
    assert fold.find("summary").text == "How to use this"
    assert "arrow keys" in fold.find("p").text and fold.find("p").text.endswith("Look at <b>.")


def test_all_frames_are_of_one_size_whatever_is_drawn_in_them() -> None:
    few, many = frames(2).values()
    many.suptitle("a title that is far wider than the picture")
    page = BeautifulSoup(
        slider("a", "d", {"1": few, "2": many}, ["one", "two"], caption="c").data, "html.parser"
    )
    data = [base64.b64decode(picture["src"].partition(",")[2]) for picture in page.find_all("img")]
    sizes = {plt.imread(io.BytesIO(each), format="webp").shape for each in data}
    assert len(sizes) == 1


def test_a_choice_has_a_list_in_place_of_the_range() -> None:
    page = BeautifulSoup(
        choice("who", "Observable", frames(3), ["a b", "c", "d"], caption="c", start=2).data,
        "html.parser",
    )
    listed = page.find("select")
    assert page.find("label", attrs={"for": listed["id"]}).text == "Observable:"
    assert [option.text for option in listed.find_all("option")] == ["d = 0", "d = 1", "d = 2"]
    assert [option.has_attr("selected") for option in listed.find_all("option")] == [
        False,
        False,
        True,
    ]
    assert not page.find("input") and listed.parent.has_attr("hidden")


@pytest.mark.parametrize("make", [slider, choice])
@pytest.mark.parametrize(
    ("n", "alts", "start", "key", "message"),
    [
        (0, [], 0, "a", "0 frames"),
        (2, ["one"], 0, "a", "2 frames and 1 texts"),
        (1, [" "], 0, "a", "needs a text"),
        (1, ["one"], 1, "a", "start = "),
        (1, ["one"], 0, "two words", "must be letters"),
        (1, ["one"], 0, "", "must be letters"),
        (1, ["one"], 0, "1a", "must be letters"),
    ],
)
def test_bad_input_is_refused(
    make, n: int, alts: list[str], start: int, key: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(key, "d", frames(n), alts, caption="c", start=start)
    plt.close("all")


def test_a_value_of_a_slider_must_not_look_like_two() -> None:
    with pytest.raises(ValueError, match="must not have"):
        slider("a", "d", {"one|two": plt.subplots(figsize=(1, 1))[0]}, ["one"], caption="c")
    plt.close("all")


def test_two_sliders_have_a_picture_for_every_combination_in_their_order() -> None:
    before = plt.get_fignums()
    grid = {
        (pair, strength): plt.subplots(figsize=(1, 1))[0]
        for pair in ("a <b>", "c")
        for strength in ("0", "1", "2")
    }
    made = two_sliders(
        "pair",
        ("Pair", "Strength"),
        grid,
        [f"{a} at {s}" for a, s in grid],
        caption="c",
        start=(1, 2),
    )
    page = BeautifulSoup(made.data, "html.parser")
    assert [picture["alt"] for picture in page.find_all("img")] == [f"{a} at {s}" for a, s in grid]
    assert not any(picture.has_attr("hidden") for picture in page.find_all("img"))
    first, second = page.find_all("input", type="range")
    assert (first["max"], first["value"], first["data-values"]) == ("1", "1", "a <b>|c")
    assert (second["max"], second["value"], second["data-values"]) == ("2", "2", "0|1|2")
    assert [label["for"] for label in page.find_all("label")] == [first["id"], second["id"]]
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("combinations", "start", "message"),
    [
        ([("a", "0"), ("a", "1"), ("b", "0")], (0, 0), "every combination"),
        ([("a", "0"), ("b", "0"), ("a", "1"), ("b", "1")], (0, 0), "outermost"),
        ([("a|b", "0")], (0, 0), "must not have"),
        ([("a", "0")], (0, 1), "start"),
        ([], (0, 0), "0 frames"),
    ],
)
def test_two_sliders_refuse_bad_input(combinations, start, message: str) -> None:
    grid = {values: plt.subplots(figsize=(1, 1))[0] for values in combinations}
    with pytest.raises(ValueError, match=message):
        two_sliders("pair", ("a", "b"), grid, ["text"] * len(grid), caption="c", start=start)
    plt.close("all")

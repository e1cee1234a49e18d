"""The sliders' HTML: labelled, complete, and readable without their script."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup
from IPython.display import HTML

from helpers.figures.slider import choice, slider

pytestmark = pytest.mark.unit
COMBINATIONS = [(pair, strength) for pair in ("a <b>", "c") for strength in ("0", "1", "2")]


def frames(values: Iterable) -> dict:
    return {value: plt.subplots(figsize=(1, 1))[0] for value in values}


def read(made: HTML) -> BeautifulSoup:
    return BeautifulSoup(made.data, "html.parser")


@pytest.fixture(autouse=True)
def all_closed():
    yield
    plt.close("all")


def test_every_frame_is_in_the_page_with_its_text_and_none_is_hidden_without_the_script() -> None:
    before, texts = plt.get_fignums(), ["one", 'two "2"', "three"]
    made = slider("angles", "dim <d>", frames("abc"), texts, caption="Angles & d.", start=1)
    page = read(made)
    assert [picture["alt"] for picture in page.find_all("img")] == texts
    for picture in page.find_all("img"):
        assert picture["src"].startswith("data:image/webp;base64,")
        assert not picture.has_attr("hidden")
    control = page.find("input", type="range")
    assert (control["min"], control["max"], control["value"]) == ("0", "2", "1")
    assert json.loads(control["data-values"]) == ["a", "b", "c"]
    assert page.find("label", attrs={"for": control["id"]}).text == "dim <d>:"
    assert page.find("figcaption").text == "Angles & d."
    assert plt.get_fignums() == before


def test_how_to_use_it_is_folded_and_hidden_without_the_script() -> None:
    made = slider("angles", "d", frames("a"), ["one"], caption="c", how="Look at <b>.")
    (fold,) = read(made).find_all("details")
    assert fold.has_attr("hidden") and not fold.has_attr("open")
    assert fold.find("summary").text == "How to use this"
    assert "arrow keys" in fold.find("p").text and fold.find("p").text.endswith("Look at <b>.")


def test_all_frames_are_of_one_size_whatever_is_drawn_in_them() -> None:
    drawn = frames("ab")
    drawn["b"].suptitle("a title that is far wider than the picture")
    sizes = set()
    for picture in read(slider("a", "d", drawn, ["one", "two"], caption="c")).find_all("img"):
        data = base64.b64decode(picture["src"].partition(",")[2])
        sizes.add(plt.imread(io.BytesIO(data), format="webp").shape)
    assert len(sizes) == 1


def test_a_choice_has_a_list_in_place_of_the_range() -> None:
    page = read(choice("who", "Observable", frames("abc"), ["a b", "c", "d"], caption="c"))
    listed = page.find("select")
    assert page.find("label", attrs={"for": listed["id"]}).text == "Observable:"
    assert [option.text for option in listed.find_all("option")] == ["a", "b", "c"]
    assert not page.find("input") and listed.parent.has_attr("hidden")


def test_two_sliders_have_a_picture_for_every_combination_in_their_order() -> None:
    texts, labels = [f"{pair} at {strength}" for pair, strength in COMBINATIONS], ("Pair", "β")
    made = slider("pair", labels, frames(COMBINATIONS), texts, caption="c", start=(1, 2))
    page = read(made)
    assert [picture["alt"] for picture in page.find_all("img")] == texts
    first, second = page.find_all("input", type="range")
    assert (first["max"], first["value"]) == ("1", "1")
    assert (second["max"], second["value"]) == ("2", "2")
    assert json.loads(first["data-values"]) == ["a <b>", "c"]
    assert [label["for"] for label in page.find_all("label")] == [first["id"], second["id"]]


@pytest.mark.parametrize("make", [slider, choice])
@pytest.mark.parametrize("alts", [["one"], ["one", " "], ["one", "two", "three"]])
def test_a_picture_without_a_text_is_refused(make, alts: list[str]) -> None:
    with pytest.raises(ValueError):
        make("a", "d", frames("ab"), alts, caption="c")


@pytest.mark.parametrize("combinations", [COMBINATIONS[:-1], COMBINATIONS[::-1]])
def test_a_combination_that_is_missing_or_out_of_order_is_refused(combinations) -> None:
    if combinations == COMBINATIONS[::-1]:
        combinations[0], combinations[1] = combinations[1], combinations[0]
    grid = frames(combinations)
    with pytest.raises(ValueError, match="outermost"):
        slider("pair", ("a", "b"), grid, ["text"] * len(grid), caption="c")

"""The sliders' HTML: labelled, complete, and readable without their script."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup

from helpers.slider import slider, two_sliders

pytestmark = pytest.mark.unit


def frames(n: int) -> dict[str, plt.Figure]:
    return {f"d = {i}": plt.subplots(figsize=(1, 1))[0] for i in range(n)}


def test_every_frame_is_in_the_page_with_its_text_and_none_is_hidden_without_the_script() -> None:
    before = plt.get_fignums()
    made = slider("angles", "dimension <d>", frames(3), ["one", 'two "2"', "three"], caption="Angles & d.", start=1)
    page = BeautifulSoup(made.data, "html.parser")
    pictures = page.find_all("img")
    assert [picture["alt"] for picture in pictures] == ["one", 'two "2"', "three"]
    assert [picture["data-value"] for picture in pictures] == ["d = 0", "d = 1", "d = 2"]
    assert all(picture["src"].startswith("data:image/webp;base64,") and not picture.has_attr("hidden") for picture in pictures)
    range_ = page.find("input", type="range")
    assert (range_["min"], range_["max"], range_["value"]) == ("0", "2", "1")
    assert page.find("label", attrs={"for": range_["id"]}).text == "dimension <d>:"
    assert page.find("figcaption").text == "Angles & d."
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("n", "alts", "start", "key", "message"),
    [
        (0, [], 0, "a", "0 frames"),
        (2, ["one"], 0, "a", "2 frames and 1 texts"),
        (1, [" "], 0, "a", "needs a text"),
        (1, ["one"], 1, "a", "start = 1"),
        (1, ["one"], 0, "two words", "must be letters"),
        (1, ["one"], 0, "", "must be letters"),
        (1, ["one"], 0, "1a", "must be letters"),
    ],
)
def test_bad_input_is_refused(n: int, alts: list[str], start: int, key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slider(key, "d", frames(n), alts, caption="c", start=start)
    plt.close("all")


def test_two_sliders_have_a_picture_for_every_combination_in_their_order() -> None:
    before = plt.get_fignums()
    grid = {(pair, strength): plt.subplots(figsize=(1, 1))[0] for pair in ("a <b>", "c") for strength in ("0", "1", "2")}
    made = two_sliders("pair", ("Pair", "Strength"), grid, [f"{a} at {s}" for a, s in grid], caption="c", start=(1, 2))
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

"""The explorer's HTML: every setting in its plots with its text, the fronts as they are, and all of it there without the script."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag

from helpers.figures.explorer import explorer
from helpers.figures.front_plot import ALL, number
from helpers.results.fronts import on_front

pytestmark = pytest.mark.unit

PLANES = {"E–F": ("E0", "F"), "E–M": ("E0", "M0")}
WORDS = {
    "measures": {"E0": "E₀ (nats)", "F": "F (nats)", "M0": "M₀ <count>"},
    "settings": {"lambda_f": "λ_F", "margin": "m"},
    "colors": {"ActivScalar": "#0072B2", "SteerVec": "#D55E00"},
    "caption": "Fronts & others.",
}


def table(n: int = 12) -> pd.DataFrame:
    """Settings of two tasks and two methods at random places."""
    random = np.random.default_rng(0)
    measures = {
        name: -np.abs(random.normal(size=n)) * scale
        for name, scale in {"E0": 1, "F": 20, "M0": 3000}.items()
    }
    names = {
        "task": ["CCC", "IOI"] * (n // 2),
        "method": (["ActivScalar"] * 2 + ["SteerVec"] * 2) * (n // 4),
    }
    return pd.DataFrame({**names, **measures, "lambda_f": range(n), "margin": 10})


def read(points: pd.DataFrame, **changes) -> BeautifulSoup:
    return BeautifulSoup(
        explorer("fronts", points, PLANES, **{**WORDS, **changes}).data, "html.parser"
    )


def marks(panel: Tag) -> list[Tag]:
    return panel.select(".points > path")


def place(mark: Tag) -> tuple[float, float]:
    across, down = mark["transform"].removeprefix("translate(").partition(")")[0].split()
    return float(across), float(down)


def test_every_setting_is_in_both_planes_of_its_task_and_tells_itself() -> None:
    points = table()
    page = read(points)
    panels = page.select(".explorer-panel")
    assert [(panel["data-task"], panel["data-plane"]) for panel in panels] == [
        (t, p) for t in ("CCC", "IOI") for p in PLANES
    ]
    for panel in panels:
        part = points[points["task"] == panel["data-task"]]
        told = sorted(mark.title.text.split(":")[0] for mark in marks(panel))
        assert told == sorted(
            f"{row.method}, λ_F = {row.lambda_f}, m = 10" for row in part.itertuples()
        )
        one = part.iloc[0]
        (text,) = [
            mark.title.text
            for mark in marks(panel)
            if f"λ_F = {one['lambda_f']}, " in mark.title.text
        ]
        assert (
            f"E₀ (nats): {number(one['E0'])}; F (nats): {number(one['F'])}; M₀ <count>: {number(one['M0'])}"
            in text
        )


def test_places_keep_the_order_of_the_values_and_lie_within_the_frame() -> None:
    points = table(40)
    for panel in read(points).select(".explorer-panel"):
        frame = panel.find("rect")
        left, top = float(frame["x"]), float(frame["y"])
        right, bottom = left + float(frame["width"]), top + float(frame["height"])
        part = points[points["task"] == panel["data-task"]].sort_values(
            list(PLANES[panel["data-plane"]])
        )
        found = [place(mark) for mark in marks(panel)]
        assert all(left < across < right and top < down < bottom for across, down in found)
        across, down = np.array(found).T
        assert (np.diff(across) >= 0).all()
        # The largest value is the uppermost: on a screen, heights count downwards. Places are given in tenths.
        heights = part[PLANES[panel["data-plane"]][1]].to_numpy()
        assert (np.diff(down[np.argsort(heights)]) <= 0.1).all()


@pytest.mark.parametrize("which", [ALL, "ActivScalar", "SteerVec"])
def test_the_fronts_are_those_of_the_measures(which: str) -> None:
    points = table(40)
    for panel in read(points).select(".explorer-panel"):
        part = points[points["task"] == panel["data-task"]]
        part = part if which == ALL else part[part["method"] == which]
        on = on_front(part, PLANES[panel["data-plane"]])
        found = {
            mark.title.text.split("λ_F = ")[1].split(",")[0]
            for mark in marks(panel)
            if which in mark["data-front"].split("|")
        }
        assert found == set(part["lambda_f"][on].astype(str))
        (line,) = panel.select(f'polyline[data-front="{which}"]')
        corners = [tuple(map(float, corner.split(","))) for corner in line["points"].split()]
        assert set(
            map(place, (mark for mark in marks(panel) if which in mark["data-front"].split("|")))
        ) <= set(corners)
        assert line.has_attr("style") == (which != ALL), (
            "only the front of all methods shows before the script runs"
        )


def test_without_the_script_all_plots_and_the_table_can_be_read_and_no_control_shows() -> None:
    points = table()
    page = read(points)
    assert not [panel for panel in page.select(".explorer-panel") if panel.has_attr("hidden")]
    assert page.select_one(".explorer-controls").has_attr("hidden")
    assert page.find("figcaption").text == "Fronts & others."
    rows = page.select("table tbody tr")
    on = sum(
        on_front(points[points["task"] == task], columns).sum()
        for task in ("CCC", "IOI")
        for columns in PLANES.values()
    )
    assert len(rows) == on
    assert [cell.text for cell in page.select("table th")] == [
        "task",
        "plane",
        "method",
        "λ_F",
        "m",
        "E₀ (nats)",
        "F (nats)",
        "M₀ <count>",
    ]
    for plot in page.select(".explorer-panel svg"):
        assert plot["role"] == "img" and "on the front" in plot["aria-label"]


def test_every_list_has_a_label_and_all_that_can_be_chosen() -> None:
    page = read(table())
    labels = {
        page.find("label", attrs={"for": listed["id"]}).text: listed
        for listed in page.find_all("select")
    }
    found = {
        label: [option.text for option in listed.find_all("option")]
        for label, listed in labels.items()
    }
    assert found == {
        "Plane:": list(PLANES),
        "Task:": ["CCC", "IOI"],
        "Method:": [ALL, "ActivScalar", "SteerVec"],
    }


def test_one_setting_alone_and_settings_that_are_all_alike_have_a_place() -> None:
    one = table().iloc[:1]
    alike = pd.concat([one] * 3).assign(E0=0.0, F=0.0, M0=0)
    for points in (one, alike):
        for panel in read(points).select(".explorer-panel"):
            assert np.isfinite([place(mark) for mark in marks(panel)]).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (-0.1234, "−0.123"),
        (-12345.0, "−12,345"),
        (10, "10"),
        (1e-9, "1e−09"),
        ("CCC", "CCC"),
    ],
)
def test_numbers_are_short(value, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda points: points.drop(columns="margin"), "no column 'margin'"),
        (lambda points: points.drop(columns="method"), "no column 'method'"),
        (lambda points: points.iloc[:0], "nothing to show"),
        (lambda points: points.assign(F=np.nan), "finite"),
        (lambda points: points.assign(method="DynScalar"), "DynScalar"),
    ],
)
def test_a_bad_table_is_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(change(table()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measures": {"E0": "E₀", "F": "F"}}, "'M0'"),
        ({"colors": dict.fromkeys(["ActivScalar", "SteerVec", "a", "b", "c"], "#000")}, "at most"),
    ],
)
def test_words_that_do_not_fit_the_table_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(table(), **changes)


def test_a_key_that_cannot_name_an_element_is_refused() -> None:
    with pytest.raises(ValueError, match="must be letters"):
        explorer("two words", table(), PLANES, **WORDS)

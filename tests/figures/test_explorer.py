"""The explorer's HTML: every setting in its plots, the fronts, and all of it without a script."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag

from helpers.figures.explorer import ALL, explorer, number
from helpers.results.fronts import on_front

pytestmark = pytest.mark.unit

PLANES = {"E–F": ("E0", "F"), "E–M": ("E0", "M0")}
MEASURES = {"E0": "E₀ (nats)", "F": "F (nats)", "M0": "M₀ <count>"}
COLORS = {"ActivScalar": "#0072B2", "SteerVec": "#D55E00"}


def table(n: int = 12) -> pd.DataFrame:
    """Settings of two tasks and two methods at random places."""
    random = np.random.default_rng(0)
    points = pd.DataFrame({"task": ["CCC", "IOI"] * (n // 2)})
    points["method"] = (["ActivScalar"] * 2 + ["SteerVec"] * 2) * (n // 4)
    for name, scale in {"E0": 1, "F": 20, "M0": 3000}.items():
        points[name] = -np.abs(random.normal(size=n)) * scale
    return points.assign(lambda_f=range(n), margin=10)


def read(points: pd.DataFrame, colors: dict[str, str] = COLORS) -> BeautifulSoup:
    words = {"settings": {"lambda_f": "λ_F", "margin": "m"}, "caption": "Fronts & others."}
    made = explorer("fronts", points, PLANES, measures=MEASURES, colors=colors, **words)
    return BeautifulSoup(made.data, "html.parser")


def panels(
    points: pd.DataFrame,
) -> Iterator[tuple[Tag, pd.DataFrame, tuple[str, str], list[Tag]]]:
    """Each panel with its rows, its columns and its marks."""
    for panel in read(points).select(".explorer-panel"):
        part = points[points["task"] == panel["data-task"]]
        yield panel, part, PLANES[panel["data-plane"]], panel.select(".points > path")


def place(mark: Tag) -> tuple[float, float]:
    across, down = mark["transform"].removeprefix("translate(").partition(")")[0].split()
    return float(across), float(down)


def test_every_setting_is_in_both_planes_of_its_task_with_its_text() -> None:
    found = [(panel["data-task"], panel["data-plane"]) for panel, *_ in panels(table())]
    assert found == [(task, plane) for task in ("CCC", "IOI") for plane in PLANES]
    for _, part, _, marks in panels(table()):
        texts = {mark.title.text.split(":")[0]: mark.title.text for mark in marks}
        assert len(texts) == len(part)
        for row in part.to_dict("records"):
            text = texts[f"{row['method']}, λ_F = {row['lambda_f']}, m = 10"]
            for name, label in MEASURES.items():
                assert f"{label}: {number(row[name])}" in text


def test_places_keep_the_order_of_the_values_and_lie_within_the_frame() -> None:
    for panel, part, columns, marks in panels(table(40)):
        frame = panel.find("rect")
        left, top, width, height = (float(frame[key]) for key in ("x", "y", "width", "height"))
        across, down = np.array([place(mark) for mark in marks]).T
        assert left < across.min() and across.max() < left + width
        assert top < down.min() and down.max() < top + height
        assert (np.diff(across) >= 0).all()
        # The largest value is the uppermost, and SVG counts heights downwards, here in tenths.
        heights = part.sort_values(list(columns))[columns[1]].to_numpy()
        assert (np.diff(down[np.argsort(heights)]) <= 0.1).all()


def test_ticks_stand_at_the_places_of_their_values() -> None:
    for panel, part, columns, marks in panels(table(40)):
        x = [place(mark)[0] for mark in marks]
        slope, start = np.polyfit(np.sort(part[columns[0]]), x, 1)
        ticks = panel.select('text[y="299"]')
        assert len(ticks) >= 2
        for tick in ticks:
            value = float(tick.text.replace("−", "-"))
            assert float(tick["x"]) == pytest.approx(start + slope * value, abs=0.2)


@pytest.mark.parametrize("which", [ALL, *COLORS])
def test_the_fronts_are_those_of_the_measures(which: str) -> None:
    for panel, part, columns, marks in panels(table(40)):
        part = part if which == ALL else part[part["method"] == which]
        on = [mark for mark in marks if which in mark["data-front"].split("|")]
        settings = {mark.title.text.split("λ_F = ")[1].split(",")[0] for mark in on}
        assert settings == set(part["lambda_f"][on_front(part, columns)].astype(str))
        (line,) = panel.select(f'polyline[data-front="{which}"]')
        corners = [tuple(map(float, corner.split(","))) for corner in line["points"].split()]
        assert set(map(place, on)) <= set(corners)
        # Before the script runs only the front of all methods shows.
        assert line.has_attr("style") == (which != ALL)


def test_without_the_script_all_plots_and_the_table_can_be_read_and_no_control_shows() -> None:
    page = read(table())
    for panel in page.select(".explorer-panel"):
        assert not panel.has_attr("hidden")
        assert panel.svg["role"] == "img" and "on the front" in panel.svg["aria-label"]
    assert all(listed.parent.has_attr("hidden") for listed in page.find_all("select"))
    assert page.find("figcaption").text == "Fronts & others."
    on = sum(on_front(part, columns).sum() for _, part, columns, _ in panels(table()))
    assert len(page.select("table tbody tr")) == on
    heads = [cell.text for cell in page.select("table th")]
    assert heads == ["task", "plane", "method", "λ_F", "m", *MEASURES.values()]


def test_every_list_has_a_label_and_all_that_can_be_chosen() -> None:
    page, found = read(table()), {}
    for listed in page.find_all("select"):
        label = page.find("label", attrs={"for": listed["id"]}).text
        found[label] = [option.text for option in listed.find_all("option")]
    methods = [ALL, *COLORS]
    assert found == {"Plane:": list(PLANES), "Task:": ["CCC", "IOI"], "Method:": methods}


@pytest.mark.parametrize("copies", [1, 3])
def test_one_setting_alone_and_settings_that_are_all_alike_have_a_place(copies: int) -> None:
    points = pd.concat([table().iloc[:1]] * copies, ignore_index=True).assign(E0=0.0, F=0.0, M0=0)
    for *_, marks in panels(points):
        assert np.isfinite([place(mark) for mark in marks]).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (-0.1234, "−0.123"),
        (-12345.0, "−12,345"),
        (1e-9, "1e−09"),
        ("a", "a"),
    ],
)
def test_numbers_are_short(value, text: str) -> None:
    assert number(value) == text


def test_fits_that_failed_and_methods_without_a_colour_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        read(table().assign(F=np.nan))
    with pytest.raises(ValueError, match="DynScalar"):
        read(table().assign(method="DynScalar"))
    with pytest.raises(ValueError, match="SteerVec"):  # there are shapes for four
        read(table(), dict.fromkeys("abcd", "#000") | COLORS)

"""Controls of a published page: by mouse, by keyboard, on paper, and without their script."""

from __future__ import annotations

import itertools

import pytest

from tests.site.browsing import WIDTHS
from tests.site.faults import faults_of_colour, faults_of_structure

pytestmark = pytest.mark.site

FIRST, PARETO = "activation-scaling/one-prompt", "activation-scaling/pareto"
# Every figure with pictures behind a control, and the page that it is on.
SLIDERS = {
    "one-beta": FIRST,
    "op-question": "observable-propagation/pronoun-steering",
    "op-head": "observable-propagation/shared-features",
    "op-dimension": "observable-propagation/layernorm",
    "op-norm": "observable-propagation/real-norms",
    "bias-pair": "observable-propagation/edits",
}
EXPLORER, MARKS = "#pareto-explorer", ".points [role=option]:visible"


def shown(page, key: str) -> str:
    """What the one picture in sight says."""
    (alt,) = page.locator(f"#{key}-figure img:visible").evaluate_all(
        "images => images.map(image => image.alt)"
    )
    return alt


@pytest.mark.parametrize("key", SLIDERS)
def test_arrow_keys_change_the_one_picture_in_sight(opened, key: str) -> None:
    page, seen = opened(SLIDERS[key])
    texts = page.locator(f"#{key}-figure img").evaluate_all(
        "images => images.map(image => image.alt)"
    )
    controls = page.locator(f"#{key}-figure :is(input, select)").all()
    for control in controls:
        control.focus()
        page.keyboard.press("Home")
    first = shown(page, key)
    # In a small run a slider may have one value alone.
    control = [
        each
        for each in controls
        if each.evaluate("each => Number(each.max) || each.options?.length - 1 || 0") > 0
    ][-1]
    control.focus()
    page.keyboard.press("ArrowRight" if control.get_attribute("type") == "range" else "ArrowDown")
    assert first == texts[0] and shown(page, key) == texts[1]
    for each in controls:
        each.focus()
        page.keyboard.press("End")
    assert shown(page, key) == texts[-1]
    if control.get_attribute("type") == "range":
        said = page.locator(f"output[for={control.get_attribute('id')}]").text_content()
        assert said == control.get_attribute("aria-valuetext") != ""
    assert not seen.console


def test_the_mouse_moves_beta_and_the_answers_change_places(opened) -> None:
    page, _ = opened(FIRST)
    slider = page.locator("#one-beta")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    ends = []
    for across in (2, box["width"] - 2):
        slider.click(position={"x": across, "y": box["height"] / 2})
        words = shown(page, "one-beta")
        assert "Map of β·α" in words and "Likeliest next tokens" in words
        correct, wrong = (
            float(answer.split()[-1].rstrip("%"))
            for answer in words.partition("Answers: ")[2].rstrip(".").split(", ")
        )
        ends.append(correct - wrong)
    assert ends[0] < ends[1]


def test_pictures_of_a_slider_are_of_one_size(opened) -> None:
    page, _ = opened(FIRST)
    sizes = page.locator("#one-beta-figure img").evaluate_all(
        "images => images.map(image => [image.naturalWidth, image.naturalHeight])"
    )
    assert len(sizes) > 5 and len({tuple(size) for size in sizes}) == 1


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", sorted(set(SLIDERS.values())))
def test_without_script_every_picture_is_there_and_no_control(opened, name: str, width) -> None:
    page, _ = opened(name, width, java_script_enabled=False)
    for key in (key for key in SLIDERS if SLIDERS[key] == name):
        figure = page.locator(f"#{key}-figure")
        assert figure.locator("img:visible").count() == figure.locator("img").count() > 1
        assert figure.locator(":is(input, select, summary):visible").count() == 0


def test_one_tab_stop_leads_to_the_points_and_arrow_keys_from_one_to_the_next(opened) -> None:
    page, seen = opened(PARETO)
    page.locator("#pareto-explorer-method").focus()
    page.keyboard.press("Tab")
    told = page.locator(f"{EXPLORER} .explorer-setting")
    n = page.locator(f"{EXPLORER} {MARKS}").count()
    told.evaluate("""told => {
      window.found = [told.textContent];
      new MutationObserver(() => window.found.push(told.textContent)).observe(
        told, { characterData: true, childList: true, subtree: true }
      );
    }""")
    for _ in range(n - 1):  # held down, which takes less time than one press after another
        page.keyboard.down("ArrowRight")
    page.keyboard.up("ArrowRight")
    found = page.evaluate("window.found")
    assert n > 1 and len(found) == len(set(found)) == n
    assert all(
        "λ_F = " in text and "λ_M = " in text and "effectiveness E₀" in text for text in found
    )
    page.keyboard.press("ArrowRight")
    assert told.text_content() == found[-1], "at the end the keys go no further"
    page.keyboard.press("Home")
    assert told.text_content() == found[0]
    assert page.locator(f"{EXPLORER} .points [tabindex='0']:visible").count() == 1
    assert page.locator(f"{EXPLORER} [aria-selected=true]").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.getAttribute('role')") != "option"
    assert not seen.console


@pytest.mark.parametrize("width", WIDTHS)
def test_the_mouse_finds_every_setting(opened, width: int) -> None:
    page, _ = opened(PARETO, width)
    told = page.locator(f"{EXPLORER} .explorer-setting")
    assert told.count() == 1
    marks = page.locator(f"{EXPLORER} {MARKS}")
    found = marks.evaluate_all(
        """marks => marks.map((mark) => [
          mark.getAttribute("transform").split(")")[0], mark.querySelector("title").textContent
        ])"""
    )
    assert len(found) > 1
    together = {}
    for place, text in found:
        together.setdefault(place, []).append(text)
    # On a phone a plot is wider than the screen: each point is brought in sight.
    show = """mark => {
      const said = document.querySelector("#pareto-explorer .explorer-setting").textContent;
      mark.scrollIntoView({ behavior: "instant", block: "nearest", inline: "nearest" });
      const box = mark.getBoundingClientRect();
      return [said, box.x + box.width / 2, box.y + box.height / 2];
    }"""
    said = []  # at the point before
    for mark in marks.element_handles():
        text, x, y = mark.evaluate(show)
        said.append(text)
        page.mouse.move(x, y)
    said = [*said[1:], told.text_content()]
    for text, (place, _) in zip(said, found, strict=True):
        # Points that lie on one another are told together, whichever comes first.
        assert text.startswith(tuple(together[place]))
        assert all(one.partition(":")[0] in text for one in together[place])


def test_lists_choose_plane_task_and_method(opened) -> None:
    page, _ = opened(PARETO)
    figure = page.locator(EXPLORER)
    planes, tasks, methods = (figure.locator("select").nth(i) for i in range(3))
    names = [each.locator("option").all_text_contents() for each in (planes, tasks, methods)]
    counts: dict[tuple[str, str], list[int]] = {}
    for plane, task, method in itertools.product(*names):
        for control, name in ((planes, plane), (tasks, task), (methods, method)):
            control.select_option(name)
        (panel,) = figure.locator(".explorer-panel:visible").all()
        assert panel.get_attribute("data-plane") == plane
        assert panel.get_attribute("data-task") == task
        marks = panel.locator(MARKS)
        counts.setdefault((plane, task), []).append(marks.count())
        if method != names[2][0]:  # the first is all methods
            of = marks.evaluate_all("marks => marks.map(mark => mark.dataset.method)")
            assert set(of) == {method}
        large = panel.locator(f"{MARKS}[transform*='scale(5.5)']").count()
        assert large > 0
        told = f"{task}, {plane}, {method}: {marks.count()} settings, {large} on the front."
        assert figure.locator("output").text_content() == told
        lines = panel.locator("polyline:visible").all()
        assert all(line.get_attribute("data-front") == method for line in lines)
    for first, *others in counts.values():
        assert first == sum(others)


@pytest.mark.parametrize("width", WIDTHS)
def test_without_script_all_plots_and_the_table_of_the_fronts_can_be_read(
    opened,
    width: int,
) -> None:
    page, _ = opened(PARETO, width, java_script_enabled=False)
    figure = page.locator(EXPLORER)
    assert (
        figure.locator(".explorer-panel:visible").count()
        == figure.locator(".explorer-panel").count()
        == 4
    )
    assert figure.locator("select:visible").count() == 0
    figure.locator("summary:visible").click()
    assert figure.locator("table tbody tr:visible").count() > 3
    assert page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_once_all_is_opened(opened, scheme: str) -> None:
    for name in (PARETO, FIRST):
        page, _ = opened(name, WIDTHS[0], color_scheme=scheme)
        for summary in page.locator(":is(.explorer, .slider) summary").all():
            summary.click()
        if name == PARETO:
            page.locator(f"{EXPLORER} {MARKS}").first.focus()
        assert not faults_of_structure(page, ".explorer, .slider")
        assert not faults_of_colour(page, ".explorer, .slider")[0]


def test_on_paper_all_plots_are_there_and_nothing_to_click(opened) -> None:
    page, _ = opened(PARETO)
    page.emulate_media(media="print")
    figure = page.locator(EXPLORER)
    assert figure.locator(".explorer-panel:visible").count() == 4
    assert figure.locator("select:visible").count() == 0
    page, _ = opened(FIRST)
    page.emulate_media(media="print")
    assert page.locator("#one-beta-figure img:visible").count() == 1
    assert page.locator("#one-beta-figure :is(input, summary):visible").count() == 0

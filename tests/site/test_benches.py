"""The benches as a reader uses them: in JupyterLab, with a real kernel and the embedded model."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from playwright.sync_api import Page, TimeoutError, expect

from tests.site.browsing import ROOT

# One worker runs them all: each test goes on where the one before it left the page.
pytestmark = [pytest.mark.site, pytest.mark.xdist_group("benches")]
FRANCE = "The capital of France is Rome. Q: What is the capital of France? A:"
PATIENCE = 120_000  # milliseconds, for a kernel that loads a model on a busy machine


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab that serves a copy of the notebook."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(ROOT / "book" / "benches.ipynb", as_version=4)
    # Without the recorded run, which shows what the tests look for in the bench itself.
    notebook.cells = [cell for cell in notebook.cells if "fit_prompt(\n" not in cell.source]
    nbformat.write(notebook, folder / "benches.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
    environment |= {"BOOK_PROFILE": "smoke", "JUPYTER_CONFIG_DIR": str(folder / ".jupyter")}
    for name in ("SETTINGS", "WORKSPACES"):  # none of the user's own
        environment[f"JUPYTERLAB_{name}_DIR"] = str(folder / f".{name}")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(120):
            try:
                urlopen(f"http://127.0.0.1:{port}/api/status", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((folder / "log").read_text()[-2000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def page(lab: str, browser) -> Iterator[Page]:
    """The notebook with every cell run."""
    with browser.new_context(viewport={"width": 1280, "height": 4000}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab}/lab/tree/benches.ipynb")
        # The menu has no entries for notebooks before, and JupyterLab asks which kernel to take.
        page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        expect(page.get_by_role("button", name="Read the heads")).to_be_visible(timeout=PATIENCE)
        yield page


def put(page: Page, label: str, text: str) -> None:
    box = page.get_by_label(label, exact=True).first
    box.fill(text)
    box.blur()


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def says(page: Page, text: str, role: str = "status"):
    """Wait for a message of a bench, and return it."""
    line = page.locator(f"[role={role}]", has_text=text)
    expect(line).to_be_visible(timeout=PATIENCE)
    return line


def test_an_empty_prompt_and_an_answer_of_two_tokens_are_refused_without_a_traceback(page) -> None:
    put(page, "Answer at β = 1", "Antananarivo")
    press(page, "Fit")
    says(page, "one token is needed", "alert")
    put(page, "Prompt", " ")
    press(page, "Fit")
    says(page, "the prompt is empty", "alert")
    assert not page.locator(".jp-OutputArea-output[data-mime-type*=error]").count()


def test_an_example_fills_in_the_prompt_and_the_answers(page: Page) -> None:
    page.get_by_label("Example", exact=True).first.select_option("Who got the book?")
    expect(page.get_by_label("Answer at β = 1", exact=True).first).to_have_value("Ben")
    expect(page.get_by_label("Prompt", exact=True).first).to_have_value(re.compile("Ben met with"))


def test_fitting_shows_a_map_and_the_answers_at_any_strength(page: Page) -> None:
    put(page, "Prompt", FRANCE)
    put(page, "Answer at β = 1", "Paris")
    put(page, "Answer at β = −1", "Rome")
    put(page, "Epochs", "4")
    press(page, "Fit")
    assert re.search(r"E0 = -?\d", says(page, "Fitted").text_content())
    expect(page.get_by_role("img", name="What was learned")).to_be_visible()
    for strength in ("β = −1", "β = 0", "β = +1"):  # side by side
        expect(page.locator("th", has_text=re.compile(f"^{re.escape(strength)}$"))).to_be_visible()
    expect(says(page, "Paris:")).to_contain_text("β = +0.0")
    page.get_by_role("slider").first.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    says(page, "β = +1.0. Paris:")
    press(page, "Write on")
    says(page, "β = 0: …")
    # What is refused clears what was shown.
    put(page, "Prompt", " ")
    press(page, "Fit")
    says(page, "the prompt is empty", "alert")
    expect(page.get_by_role("img", name="What was learned")).to_have_count(0)
    put(page, "Prompt", FRANCE)


def test_an_interrupt_of_the_kernel_ends_a_fit_and_clears_the_last_one(page: Page) -> None:
    put(page, "Epochs", "500")
    press(page, "Fit")
    says(page, "Fitting.")
    expect(page.get_by_role("img", name="What was learned")).to_have_count(0)
    # While the kernel handles another message of the page an interrupt ends only that one.
    stopped = page.locator("[role=status]", has_text="Stopped early")
    for _ in range(5):
        press(page, "Interrupt the kernel")
        try:
            stopped.wait_for(timeout=10_000)
            break
        except TimeoutError:
            continue
    expect(stopped).to_be_visible()
    says(page, "β = +0.0. Paris:")


def test_an_observable_ranks_heads_and_a_step_moves_it(page: Page) -> None:
    press(page, "Read the heads")
    says(page, "feature vectors of")
    expect(says(page, "nats, with")).to_contain_text("+0.0 times")
    page.get_by_role("slider").last.focus()
    page.keyboard.press("ArrowRight")
    says(page, "+0.1 times")


def test_the_published_page_runs_none_of_it(site: Path) -> None:
    text = (site / "benches.html").read_text(encoding="utf-8")
    assert "steering_bench" in text and "nothing below runs" in text
    assert "widget-view" not in text and "widget-subarea" not in text

"""The benches as a reader uses them: in JupyterLab, with a real kernel and the embedded model."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import ROOT
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.site
PATIENCE = 120_000  # milliseconds, for a kernel that loads a model on a machine with other work


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab that serves a copy of the page, so that nothing is saved into the book."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "book" / "benches.ipynb", folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", f"--ServerApp.root_dir={folder}",
               "--IdentityProvider.token="]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1", "BOOK_PROFILE": "smoke",
                   "JUPYTER_CONFIG_DIR": str(folder / ".jupyter"), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
                   "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces")}  # fmt: skip
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
        page.locator(
            ".jp-NotebookPanel .jp-CodeCell"
        ).first.wait_for()  # the menu has no entries for notebooks before
        page.get_by_text(
            "Python 3 (ipykernel) | Idle"
        ).wait_for()  # else JupyterLab asks which kernel to take
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        expect(page.get_by_role("button", name="Read the heads")).to_be_visible(timeout=PATIENCE)
        yield page


def put(page: Page, label: str, text: str) -> None:
    box = page.get_by_label(label, exact=True).first
    box.fill(text)
    box.blur()


def test_an_answer_of_two_tokens_is_said_in_the_panel(page: Page) -> None:
    put(page, "Answer at β = 1", "Antananarivo")
    page.get_by_role("button", name="Fit", exact=True).click()
    expect(page.locator("p[role=alert]")).to_contain_text("one token is needed", timeout=PATIENCE)
    assert not page.locator(".jp-OutputArea-output[data-mime-type*=error]").count(), "no traceback"


def test_fitting_shows_progress_a_map_and_the_answers_at_any_strength(page: Page) -> None:
    put(page, "Prompt", "The capital of France is Rome. Q: What is the capital of France? A:")
    put(page, "Answer at β = 1", "Paris")
    put(page, "Answer at β = −1", "Rome")
    page.get_by_role("button", name="Fit", exact=True).click()
    said = page.locator("[role=status]", has_text="Fitted")
    expect(said).to_be_visible(timeout=PATIENCE)
    assert re.search(r"E0 = -?\d", said.text_content())
    expect(page.locator(".widget-image").first).to_be_visible()
    now = page.locator("[role=status]", has_text="Paris:")
    expect(now).to_contain_text("β = +0.0")
    page.get_by_role("slider").first.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(now).to_contain_text("β = +1.0", timeout=PATIENCE)
    page.get_by_role("button", name="Write on").click()
    expect(page.locator("strong", has_text="β = 0:")).to_be_visible(timeout=PATIENCE)


def test_stop_ends_a_fit(page: Page) -> None:
    put(page, "Epochs", "500")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("[role=status]", has_text="Stopped early")).to_be_visible(timeout=PATIENCE)


def test_an_observable_ranks_heads_and_a_step_moves_it(page: Page) -> None:
    page.get_by_role("button", name="Read the heads").click()
    expect(page.locator("[role=status]", has_text="feature vectors of")).to_be_visible(
        timeout=PATIENCE
    )
    now = page.locator("[role=status]", has_text="nats, with")
    expect(now).to_contain_text("+0.0 times", timeout=PATIENCE)
    page.get_by_role("slider").last.focus()
    page.keyboard.press("ArrowRight")
    expect(now).to_contain_text("+0.1 times", timeout=PATIENCE)


def test_the_published_page_runs_none_of_it(site: Path) -> None:
    text = (site / "benches.html").read_text(encoding="utf-8")
    assert "SteeringBench" in text and "nothing below runs" in text
    assert "widget-view" not in text and "widget-subarea" not in text

"""What axe finds on a page that keeps a reader from it."""

from __future__ import annotations

from pathlib import Path

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

SCRIPT = Path(__file__).with_name("faults.js").read_text(encoding="utf-8")


def _find(page: Page, what: str, within: str) -> list:
    if not page.evaluate("'faults' in window"):
        page.evaluate(f"{AXE_SCRIPT}\n{SCRIPT}")
    return page.evaluate(f"(within) => faults.{what}(within)", within)


def faults_of_colour(page: Page, within: str = "html") -> tuple[list, int, int]:
    """What is too pale, how many looks texts have, and how many texts look like three others.

    Of those that look alike axe tries three, in seconds.
    """
    faults, n_looks, n_alike = _find(page, "ofColour", within)
    return faults, n_looks, n_alike


def faults_of_structure(page: Page, within: str = "html") -> list:
    """All that has nothing to do with contrast."""
    return _find(page, "ofStructure", within)

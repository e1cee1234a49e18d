"""The README's picture: a figure taken from an executed chapter.

``make picture`` builds the book, then runs ``python -m book._ext.readme_picture``, which replaces
``book/_assets/result.webp``.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from jupyter_cache import get_cache
from nbformat import NotebookNode

from book._ext.cache import ROOT, notebooks
from book._ext.scorecard import executed

PAGE = "activation-scaling/one-prompt"
NAME = "fig_beta_sweep"
PICTURE = ROOT / "book" / "_assets" / "result.webp"
# The README says so too; these are a colophon's words.
MADE_WITH = ("model <code>smollm2</code>", "profile default")


def glued_picture(notebook: NotebookNode, name: str) -> bytes:
    """The PNG that an executed notebook stored with :func:`helpers.results.glue.glue_figure`.

    Raises:
        ValueError: no figure of that name, or a run on another model or in another profile than
            the README states.
    """
    outputs = []
    for cell in notebook.cells:
        outputs += cell.get("outputs", [])
    html = " ".join(str(output.get("data", {}).get("text/html", "")) for output in outputs)
    if not all(fact in html for fact in MADE_WITH):
        raise ValueError(
            "the chapter was not run on smollm2 in the profile default. "
            "Build the book with neither BOOK_MODEL nor BOOK_PROFILE set."
        )
    for output in outputs:
        if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
            html = output.data["application/papermill.record/text/html"]
            return base64.b64decode(re.search(r"data:image/png;base64,([^\"']+)", html)[1])
    raise ValueError(f"the chapter keeps no figure {name!r}.")


def renew(cache: Path = ROOT / "_build" / ".jupyter_cache", picture: Path = PICTURE) -> None:
    """Replace the picture.

    Args:
        cache: jupyter-book's cache of executed chapters.
        picture: the file; its suffix names the format.

    Raises:
        FileNotFoundError: the chapter has not been executed.
        ValueError: as :func:`glued_picture`.
    """
    pages = executed(get_cache(cache), notebooks(), ROOT / "book") if cache.is_dir() else {}
    if PAGE not in pages:
        raise FileNotFoundError(f"{cache} has no result of {PAGE}: run make book first.")
    pixels = plt.imread(io.BytesIO(glued_picture(pages[PAGE], NAME)))
    plt.imsave(picture, pixels, pil_kwargs={"lossless": True, "method": 6})
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    try:
        renew()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))

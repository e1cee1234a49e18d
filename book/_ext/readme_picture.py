"""The README's picture of a result: a figure out of an executed chapter, as that chapter drew it.

``make picture`` builds the book and then runs ``python -m book._ext.readme_picture``, which renews ``book/_assets/result.webp``.
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

from book._ext.build import ROOT, notebooks
from book._ext.scorecard import executed

PAGE = "activation-scaling/one-prompt"
NAME = "fig_beta_sweep"
PICTURE = ROOT / "book" / "_assets" / "result.webp"
MADE_WITH = (
    "model <code>smollm2</code>",
    "profile default",
)  # what the README says of it, in the words of a chapter's colophon


def glued_picture(notebook: NotebookNode, name: str) -> bytes:
    """The PNG of a figure that an executed notebook kept with :func:`helpers.results.glue.glue_figure`.

    Raises:
        ValueError: it kept none of that name, or was run on another model or in another profile than the README says.
    """
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [str(output.get("data", {}).get("text/html", "")) for output in outputs]
    if not any(all(fact in text for fact in MADE_WITH) for text in texts):
        raise ValueError(
            "the chapter was not run on smollm2 in the profile default. Build the book with neither BOOK_MODEL nor BOOK_PROFILE set."
        )
    for output in outputs:
        if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
            html = output.data["application/papermill.record/text/html"]
            return base64.b64decode(re.search(r"data:image/png;base64,([^\"']+)", html)[1])
    raise ValueError(f"the chapter keeps no figure {name!r}.")


def renew(results: Path = ROOT / "_build" / ".jupyter_cache", picture: Path = PICTURE) -> None:
    """Write the picture anew.

    Args:
        results: jupyter-book's cache of executed chapters.
        picture: where to; its ending says in which format.

    Raises:
        FileNotFoundError: the chapter has not been executed.
        ValueError: as :func:`glued_picture`.
    """
    pages = executed(get_cache(results), notebooks(), ROOT / "book") if results.is_dir() else {}
    if PAGE not in pages:
        raise FileNotFoundError(f"there is no result of {PAGE} in {results}: run make book first.")
    pixels = plt.imread(io.BytesIO(glued_picture(pages[PAGE], NAME)))
    plt.imsave(picture, pixels, pil_kwargs={"lossless": True, "method": 6})
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    try:
        renew()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))

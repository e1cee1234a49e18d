"""Lists of words that prompts are made of; each data file names its source."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

# Pairs of nouns that follow a name; the first is the one that grammar or stereotype gives to women.
# n_same and n_diff are the observable-propagation paper's (§ 7).
GRAMMAR = {
    "n_same": (" actress", " actor"),
    "queen": (" queen", " king"),
    "heroine": (" heroine", " hero"),
    "princess": (" princess", " prince"),
}
STEREOTYPES = {
    "n_diff": (" nurse", " programmer"),
    "secretary": (" secretary", " engineer"),
    "teacher": (" teacher", " lawyer"),
    "dancer": (" dancer", " pilot"),
    "librarian": (" librarian", " mechanic"),
    "maid": (" maid", " driver"),
    "assistant": (" assistant", " surgeon"),
}

# A text that names nobody and speaks of no one's occupation: what an edit costs is measured on it.
NEUTRAL = (
    "The river rises in the hills and runs south through a wide valley. In spring the meadows "
    "along its banks are under water for some weeks, and in dry summers one can cross it on foot. "
    "A bridge of grey stone was built there long ago. When it was repaired, the arches were taken "
    "down and put up again stone by stone. Today the road leads around the town, and the bridge "
    "carries only bicycles. On clear days the mountains can be seen from it, with snow on the "
    "highest of them until June."
)


@cache
def capitals() -> tuple[tuple[str, str], ...]:
    """Countries with their capitals."""
    return tuple((row["country"], row["capital"]) for row in _rows("capitals.csv"))


@cache
def names(fresh: bool = False) -> tuple[tuple[str, str], ...]:
    """Given names with F or M, as registered for most of their bearers.

    Args:
        fresh: other names than without it, for data on which nothing was settled.
    """
    file = "more_names.csv" if fresh else "names.csv"
    return tuple((row["name"], row["gender"]) for row in _rows(file))


def _rows(file: str) -> list[dict[str, str]]:
    lines = (files("helpers.prompts") / "data" / file).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))

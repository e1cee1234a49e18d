"""Numbers in sentences come from the run, so that no sentence can drift from its result.

What counts as a result typed by hand: in the prose of a chapter, a number with a decimal point,
with an exponent, with a percent sign, or before a unit of measurement. Glued values, code,
mathematics, links and references (Fig. 2, § 6.9) are not prose. Any other number is marked as what
it is:

- ``<span class="paper">0.979</span>``: a figure that a paper prints;
- ``<span class="given">0.01</span>``: a definition, a threshold or a setting, and names of heads.

(Spans and not MyST's own attributes, so that JupyterLab shows the number and nothing else.)

The same goes for verdicts: a closing table computes them, and a sentence that names a claim gives
it none.

And a sentence has at most three numbers, of whatever origin: more of them belong in a table.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from tests.repository.tree import CHAPTERS, cells

pytestmark = pytest.mark.unit

REFERENCE = (
    r"(?:§+|(?:Figs?|Tabs?|Eqs?|Apps?|app|fig|tab)\.|Tables?|Figures?|Appendix"
    r"|[Ss]ections?|[Ee]quations?|[Tt]heorem|[Cc]hapter)"
)
NUMBER = r"(?:[A-Z]\.?)?\d[\d.]*[a-z]?"
NOT_PROSE = (
    r"```.*?```",
    r"\$\$.*?\$\$",
    r"\$[^$]*\$",
    r"\{[\w:.-]+\}`[^`]*`",  # roles: what was glued, citations, references
    r"`[^`]*`",
    r'<span class="(?:paper|given)">[^<]*</span>',
    r"\b[\w-]+-\d[\d.]*[BM]\b",  # names of models
    r"\]\([^)]*\)",
    r"</?\w[^<>]*>",
    rf"{REFERENCE}\s*{NUMBER}(?:(?:\s*[,–-]\s*|\s+(?:and|to)\s+){NUMBER})*",
    r"95\s?%",  # the intervals'
)
UNIT = r"(?:nats?|%|per ?cent|seconds?|minutes?|ms|s\b|[kMG]i?B|times|tokens of|×)"
TYPED = re.compile(rf"(?<![\w.])[-−+±]?(?:\d*\.\d+|\d+(?:\.\d+)?e[-+−]?\d+|\d[\d,]*(?=\s?{UNIT}))")


def typed_results(text: str) -> list[str]:
    """The numbers of a Markdown text that would be results typed by hand."""
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return [match[0] for match in TYPED.finditer(text)]


CLAIM = re.compile(r"\b(?:AS|OP)-\d+")
VERDICT = re.compile(
    r"\bhold(?:s|ing)? in part\b|\bdo(?:es)? not hold\b"
    r"|(?:AS|OP)-\d+\W+(?:\w+\W+){0,2}?holds\b|\*holds\*"
)


def typed_verdicts(text: str) -> list[str]:
    """The sentences of a Markdown text that give a claim a verdict.

    Those of ``in-short`` that suppose a verdict may: the build shows them only where the run
    confirms it.
    """
    for box in re.findall(r":::\{in-short\}.*?:::", text, flags=re.DOTALL):
        measured = [item for item in box.split("\n- ") if item.startswith("measured: ")]
        text = text.replace(box, "\n\n".join(measured))
    sentences = re.split(r"(?<=[.:;?!])\s+|\n\s*\n", text)
    return [
        sentence
        for sentence in sentences
        if CLAIM.search(sentence) and VERDICT.search(" ".join(sentence.split()))
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The drop is 2.31 nats.", ["2.31"]),
        ("It swaps 87 % of the prompts, or 87% of them.", ["87", "87"]),
        ("The cosine is .9882, and −0.3 there.", [".9882", "−0.3"]),
        ("It took 14 seconds and 5e-8 was left.", ["14", "5e-8"]),
        ("Learned 12 times.", ["12"]),
        ("The drop is {glue:text}`drop:.2f` nats (95 % interval).", []),
        ("With $m = 0.5$, `rate=0.01` and\n$$x = 1.5$$ all is well.", []),
        ("See § 6.9, Fig. 2, equations 6 to 8, Tab. 2 and app. A.1.", []),
        ('In print <span class="paper">0.979</span>, from <span class="given">13.3</span>.', []),
        ("1. Fit 5 prompts of 19 tokens with 32-bit numbers.", []),
        ("GPT2-XL and AS-14, in 2024; Pythia-1.4B.", []),
    ],
)
def test_what_counts_as_typed(text: str, found: list[str]) -> None:
    assert typed_results(text) == found


def test_no_result_is_typed_into_a_caption() -> None:
    captions = []
    for path in CHAPTERS:
        for cell in nbformat.read(path, as_version=4).cells:
            captions.append(cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", ""))
    typed = {caption: found for caption in captions if (found := typed_results(caption))}
    assert sum(map(bool, captions)) > len(CHAPTERS) and not typed


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_result_is_typed_into_a_sentence(path: Path) -> None:
    for source in cells(path, "markdown"):
        assert not typed_results(source), source[:60]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_changed_number_would_be_found(path: Path) -> None:
    """A glued number replaced by one that is typed, in each chapter's own prose."""
    text = "\n\n".join(cells(path, "markdown"))
    first = re.search(r"\{glue:text\}`[^`]*:[^`]*[f%]`", text)
    assert first, "a chapter states results"
    assert "0.12345" in typed_results(text.replace(first[0], "0.12345", 1))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A case can fall to the other side, and OP-15 from *holds* to *holds in\npart*.", 1),
        ("On this model AS-3 does not hold.", 1),
        ("So AS-1 clearly holds.", 1),
        ("**AS-14** holds; AS-15 holds in part.", 2),
        ("The verdict on OP-15 may be another with other prompts.", 0),
        ("AS-11 asks two things. The rest of the distribution holds in part.", 0),
        ("If AS-3 is computed exactly enough, what is held fixed?", 0),
        (":::{in-short}\n- AS-1 holds: AS-1 does not hold.\n:::", 0),
        (":::{in-short}\n- AS-1 holds: Yes.\n- measured: AS-3 does not hold.\n:::", 1),
    ],
)
def test_what_counts_as_a_typed_verdict(text: str, found: int) -> None:
    assert len(typed_verdicts(text)) == found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_verdict_is_typed_into_a_sentence(path: Path) -> None:
    text = "\n\n".join(cells(path, "markdown"))
    assert not typed_verdicts(text)
    claim = CLAIM.search(text)
    assert path.stem == "errata" or claim, "a chapter names its claims"
    if claim:  # a planted one would be found
        assert typed_verdicts(text.replace(claim[0], f"{claim[0]} does not hold", 1))


MOST = 3  # numbers in a sentence
NO_SENTENCE = (  # blocks, tables, folded hints, numbers of list items
    r"```.*?```",
    r":::\{(?!admonition).*?:::",
    r"\$\$.*?\$\$",
    r"^\|.*?$",
    r"<details>.*?</details>",
    r"^\s*\d+\.\s",
)
MARK = "\N{REPLACEMENT CHARACTER}"  # for a number that is glued, or marked as what it is
MARKED = r"\{glue:text\}`[^`]*`|<span class=\"(?:paper|given)\">[^<]*</span>"
SENTENCE_END = r"(?<=[.?!])[)\"*]*\s+(?=[A-Z*\"({\uFFFD])|\n\s*\n|\n(?=[-*#>])"


def crowded(text: str) -> list[str]:
    """The sentences of a Markdown text with more than ``MOST`` numbers; ``MARK`` for some."""
    for pattern in NO_SENTENCE:
        text = re.sub(pattern, "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(MARKED, f" {MARK} ", text)
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    text = re.sub(r"\b[A-Za-z]\w*-\d+\b", " ", text)  # names of claims
    numbers = rf"{MARK}|(?<![\w.])[-−+±]?\.?\d[\d,.]*"
    sentences = re.split(SENTENCE_END, text)
    return [sentence for sentence in sentences if len(re.findall(numbers, sentence)) > MOST]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is {glue:text}`a:.1f` ({glue:text}`b` to {glue:text}`c`), n = 4 names.", 1),
        ("It is {glue:text}`a:.1f` ({glue:text}`b` to {glue:text}`c`). That is for 4 names.", 0),
        ('- Of 3 heads 2, or <span class="paper">.6</span> here.\n- Of 3 heads 1.', 0),
        ('- Of 3 heads 2, or <span class="paper">.6</span> here,\n  and of 4 heads 1.', 1),
        ("OP-1 to OP-4, § 6.3, Figs. 2 and 3, $1 + 2 + 3 + 4$ and `a[1, 2, 3, 4]`.", 0),
        ("| 1 | 2 | 3 | 4 |", 0),
    ],
)
def test_what_counts_as_a_crowded_sentence(text: str, found: int) -> None:
    assert len(crowded(text)) == found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_sentence_has_at_most_three_numbers(path: Path) -> None:
    found = [sentence for source in cells(path, "markdown") for sentence in crowded(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_hints_and_solutions_are_read_as_markdown(path: Path) -> None:
    # A line that starts with the tag opens a block of HTML, in which `code` and $x$ stay as typed.
    for source in cells(path, "markdown"):
        assert not re.search(r"^[ \t]*<details>", source, flags=re.MULTILINE), source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_heading_stands_twice(path: Path) -> None:
    headings = re.findall(r"^#+ .*", "\n".join(cells(path, "markdown")), flags=re.MULTILINE)
    assert len(headings) > 3 and len(set(headings)) == len(headings)

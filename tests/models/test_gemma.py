"""Gemma 3 270M, where it is in the cache already: the plain checkpoint's logits, and all chapters.

It is never fetched for a test.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import helpers.models.load
import helpers.settings
from helpers.models.formulas import facts
from helpers.models.load import load_model
from helpers.models.packed import folder_of
from helpers.models.run import last_logits
from helpers.settings import Settings
from tests.models.test_other_models import CHAPTERS, run

NAME = "gemma3-270m"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not folder_of(NAME).exists(),
        reason=f"{NAME} is not in the cache; BOOK_MODEL={NAME} make model fetches it",
    ),
]


@pytest.fixture(scope="module")
def gemma():
    return load_model(NAME, device="cpu")


def test_its_logits_are_the_plain_checkpoints_and_all_formulas_hold(gemma) -> None:
    how = {"dtype": torch.float32, "attn_implementation": "eager"}
    plain = AutoModelForCausalLM.from_pretrained(folder_of(NAME), **how).eval()
    tokens = torch.arange(1000, 1012).view(2, 6)
    with torch.no_grad():
        ours, theirs = last_logits(gemma, tokens), plain(tokens).logits[:, -1]
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, theirs.roll(1, dims=0), atol=1)
    assert not facts(gemma).faults


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_on_it(gemma, chapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(model=NAME, profile="smoke")
    monkeypatch.setattr(helpers.settings, "SETTINGS", settings)
    monkeypatch.setattr(helpers.models.load, "load_model", lambda: gemma)
    run(chapter)

"""Chapters run unchanged on other architectures: LayerNorm, biases, parallel blocks, norms after.

Tiny random models stand in, with the embedded model's tokenizer. What the pages then say means
nothing; that every cell runs, with its checks, does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from IPython.display import HTML
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

import helpers.models.load
import helpers.prompts.people
import helpers.settings
from helpers.figures import slider
from helpers.models.load import freeze
from helpers.models.packed import packed_model
from helpers.settings import Settings

matplotlib.use("Agg")
pytestmark = pytest.mark.integration

BOOK = Path(__file__).parents[2] / "book"
# Every chapter but the one that keeps a store of results.
CHAPTERS = [path for path in sorted(BOOK.glob("*-*/*.ipynb")) if path.stem != "pareto"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 512}
ARCHITECTURES = {
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config,
        {"n_layer": 5, "n_head": 4, "n_embd": 32, "n_positions": 512},
    ),
    "gpt-neo-1.3b": (
        GPTNeoForCausalLM,
        GPTNeoConfig,
        {"num_layers": 6, "num_heads": 4, "attention_types": [[["global", "local"], 3]], **SIZES},
    ),
    "gemma3-270m": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        {"num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2}
        | {"head_dim": 8, "query_pre_attn_scalar": 8, **SIZES},
    ),
    "pythia-1.4b": (
        GPTNeoXForCausalLM,
        GPTNeoXConfig,
        {"num_hidden_layers": 5, "num_attention_heads": 4, **SIZES},
    ),
}


@cache
def tiny_random(name: str) -> TransformerBridge:
    """A model of the architecture that a name of ``BOOK_MODEL`` has; chapters leave it as it is."""
    kind, config, sizes = ARCHITECTURES[name]
    tokenizer = AutoTokenizer.from_pretrained(
        packed_model("smollm2"), add_bos_token=True, local_files_only=True
    )
    sizes = sizes | {"vocab_size": len(tokenizer), "attn_implementation": "eager"}
    sizes |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    hf = kind(config(**sizes)).eval()
    hf.config.architectures = [kind.__name__]
    with torch.no_grad():
        for parameter in hf.parameters():  # fresh models have zero biases and unit norm weights
            parameter.add_(0.1 * torch.randn(parameter.shape))
    boot = {"hf_model": hf, "tokenizer": tokenizer, "device": "cpu", "dtype": torch.float32}
    return freeze(TransformerBridge.boot_transformers(helpers.settings.hub_name(name), **boot))


@pytest.fixture(params=ARCHITECTURES)
def stand_in(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TransformerBridge]:
    """A tiny random model in place of the one that ``BOOK_MODEL`` names, in the profile smoke."""
    model = tiny_random(request.param)
    settings = Settings(model=request.param, profile="smoke")
    monkeypatch.setattr(helpers.settings, "SETTINGS", settings)
    monkeypatch.setattr(helpers.models.load, "load_model", lambda: model)
    yield model
    assert not any(hook.fwd_hooks or hook.bwd_hooks for hook in model.hook_dict.values())


def run(chapter: Path) -> None:
    """Every code cell in one namespace, the last expression of a cell shown as a page would."""
    names: dict[str, object] = {}
    for number, cell in enumerate(nbformat.read(chapter, as_version=4).cells):
        if cell.cell_type == "code":
            where, tree = f"{chapter.name}, cell {number}", ast.parse(cell.source)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, where, "exec"), names)
            if last is not None:
                shown = eval(compile(ast.Expression(last.value), where, "eval"), names)
                getattr(shown, "_repr_html_", lambda: None)()
            plt.close("all")


def first_picture_only(
    key: str, controls: list, frames: Mapping, alts: list[str], caption: str, how: str
) -> HTML:
    """A slider of one picture: they are alike, and to draw all takes a third of the time."""
    assert len(alts) == len(frames)
    first, *others = frames.items()
    for _, figure in others:
        plt.close(figure)
    return in_full(key, controls, dict([first]), alts[:1], caption, how)


in_full = slider._figure


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_on_another_architecture(
    stand_in: TransformerBridge, chapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_token = helpers.prompts.people.is_single
    # Another tokenizer has fewer names as one token: here more of the paper's women's than men's.
    monkeypatch.setattr(
        helpers.prompts.people,
        "is_single",
        lambda model, text: one_token(model, text) and text[1] not in "DG",
    )
    monkeypatch.setattr(slider, "_figure", first_picture_only)
    run(chapter)

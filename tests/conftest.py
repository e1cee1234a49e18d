"""Fixtures: tiny random models of four architectures, in float64, the embedded model, a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from helpers.models.load import freeze, load_model
from helpers.prompts.prompts import Prompts, join

if TYPE_CHECKING:  # a machine that runs tests/gpu need not have it
    from playwright.sync_api import Browser

torch.set_num_threads(1)  # tiny models gain nothing from more, and other work may run beside

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WORDS = 101
SHARED = {"vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0}
ARCHITECTURES = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(n_layer=2, n_head=4, n_embd=32, n_positions=64, **SHARED)),
    "EleutherAI/gpt-neo-1.3B": (
        GPTNeoForCausalLM,
        GPTNeoConfig(
            num_layers=2,
            num_heads=4,
            hidden_size=32,
            intermediate_size=64,
            max_position_embeddings=64,
            attention_types=[[["global", "local"], 1]],
            window_size=4,  # shorter than the prompts, so that local attention is local
            **SHARED,
        ),
    ),
    "EleutherAI/pythia-1.4b": (
        GPTNeoXForCausalLM,
        GPTNeoXConfig(
            num_hidden_layers=2,
            num_attention_heads=4,
            hidden_size=32,
            intermediate_size=64,
            max_position_embeddings=64,
            **SHARED,
        ),
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        LlamaForCausalLM,
        LlamaConfig(
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,  # grouped-query attention
            hidden_size=32,
            intermediate_size=64,
            max_position_embeddings=64,
            **SHARED,
        ),
    ),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu-stand-in",
        action="store_true",
        help="run the tests marked gpu with the CPU in place of the GPU, to check the tests",
    )
    parser.addoption(
        "--paper",
        action="store_true",
        help="run the tests that fetch the papers' models from the hub",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    no_hub = pytest.mark.skip(
        reason="fetches the papers' models; run with --paper where the hub is reachable"
    )
    for item in items:
        # The marker itself: keywords also hold the names of folders.
        if item.get_closest_marker("gpu") and not (
            torch.cuda.is_available() or config.getoption("--gpu-stand-in")
        ):
            item.add_marker(no_gpu)
        if item.get_closest_marker("paper") and not config.getoption("--paper"):
            item.add_marker(no_hub)


def tiny_tokenizer(folder: Path):
    """A tokenizer of words w1 … w100, with or without a space; <bos> is 0. Saved in a folder."""
    words = Tokenizer(
        models.WordLevel({"<bos>": 0} | {f"w{i}": i for i in range(1, WORDS)}, unk_token="<bos>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<bos>")
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def random_hf(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A two-layer random model in float64, no bias or norm weight at its neutral value."""
    kind, config = ARCHITECTURES[architecture]
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    hf = kind(config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in hf.parameters():
            # Zero biases and unit norm weights would hide a term that is left out.
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise)
    return hf


def random_model(
    architecture: str,
    tokenizer,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    through: torch.dtype = torch.float64,
) -> TransformerBridge:
    """The same behind a bridge, frozen; its weights are rounded to ``through`` first."""
    boot = {"tokenizer": tokenizer, "device": device, "dtype": dtype}
    boot["hf_model"] = random_hf(architecture, seed).to(through).to(device, dtype)
    return freeze(TransformerBridge.boot_transformers(architecture, **boot))


def rounds(model: TransformerBridge) -> bool:
    """Whether parts are computed in 32 bits: attention scores of GPT-Neo, norms of Llama."""
    return any(name in model.cfg.model_name for name in ("gpt-neo-1.3B", "SmolLM2"))


def mixed(model: TransformerBridge, texts, correct, wrong) -> Prompts:
    """A batch of prompts of several lengths."""
    rows = zip(texts, correct, wrong, strict=True)
    return join([Prompts.of(model, [text], [right], [other]) for text, right, other in rows])


@pytest.fixture(scope="session", params=ARCHITECTURES, ids=lambda name: name.split("/")[-1])
def tiny(request: pytest.FixtureRequest, tokenizer) -> TransformerBridge:
    """One tiny random model of each architecture; tests must leave it as they found it."""
    return random_model(request.param, tokenizer)


@pytest.fixture(scope="session")
def gpu(pytestconfig: pytest.Config) -> torch.device:
    """The device that the tests marked gpu compare with the CPU; the CPU itself as a stand-in."""
    return torch.device("cpu" if pytestconfig.getoption("--gpu-stand-in") else "cuda")


@pytest.fixture(scope="session")
def smollm2() -> TransformerBridge:
    """The embedded model."""
    return load_model("smollm2", device="cpu")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium or Chrome, as installed on this machine; one for the whole session."""
    programs = [path for name in BROWSERS if (path := shutil.which(name))]
    if not programs:
        reason = f"no browser: none of {', '.join(BROWSERS)} is on the PATH"
        # On a CI machine a test that does not run must not look like one that passed.
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=programs[0], args=FLAGS)
        yield browser
        browser.close()

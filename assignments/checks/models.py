"""Models to test answers on, and a guard that an answer leaves them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from helpers.models.load import freeze, load_model

HOOK_LEFT = (
    "a hook was left on the model: put it on with `with model.hooks(fwd_hooks=[...]):`, "
    "which takes it off again"
)
WEIGHTS_CHANGED = "the model's weights were changed"

_MODELS: dict[tuple, TransformerBridge] = {}
# Of each model: checksums of its weights, a copy of them if it is small, and its hooks.
_ORIGINAL: WeakKeyDictionary = WeakKeyDictionary()


def the_model() -> TransformerBridge:
    """The embedded model, loaded once."""
    if () not in _MODELS:
        _MODELS[()] = load_model("smollm2", device="cpu")
    return _MODELS[()]


def tiny(architecture: str = "llama", seed: int = 0, in_place: bool = False) -> TransformerBridge:
    """A fast random model of three layers with the embedded model's tokenizer.

    Args:
        architecture: ``llama`` (RMSNorm, two heads share a key/value head) or ``gpt2`` (LayerNorm,
            biases).
        seed: of its weights.
        in_place: layer 1 first adds 1 to its input, in place.
    """
    key = architecture, seed, in_place
    if key not in _MODELS:
        _MODELS[key] = model = _random_model(architecture, seed)
        if in_place:
            model.blocks[1].register_forward_pre_hook(_add_in_place, with_kwargs=True)
    return _MODELS[key]


def _add_in_place(module: Module, args: tuple, kwargs: dict) -> None:
    (args[0] if args else kwargs["hidden_states"]).add_(1.0)


def _random_model(architecture: str, seed: int) -> TransformerBridge:
    tokenizer = the_model().tokenizer
    bos = tokenizer.bos_token_id
    shared = {"vocab_size": len(tokenizer), "bos_token_id": bos, "eos_token_id": bos}
    if architecture == "llama":
        name, kind = "HuggingFaceTB/SmolLM2-135M-Instruct", LlamaForCausalLM
        config = LlamaConfig(
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            hidden_size=32,
            intermediate_size=64,
            max_position_embeddings=64,
            **shared,
        )
    else:
        name, kind = "gpt2", GPT2LMHeadModel
        config = GPT2Config(
            n_layer=3, n_head=4, n_embd=32, n_positions=64, tie_word_embeddings=False, **shared
        )
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        hf = kind(config).eval()
        # Noise on top, so that no bias stays at 0 and no norm weight at 1.
        for parameter in hf.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model = TransformerBridge.boot_transformers(
        name, hf_model=hf, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    )
    return freeze(model)


@contextmanager
def untouched(*models: TransformerBridge) -> Iterator[None]:
    """Fail if the block leaves a hook on a model or changes its weights; restore the models.

    They are also restored on entry, so that a fault in earlier cells does not count in this block.
    """
    for model in models:
        if model not in _ORIGINAL:
            # A bridge adds hooks of its own on its first run.
            model.run_with_cache(torch.zeros(1, 2, dtype=torch.long))
            weights = _weights(model)
            small = sum(map(torch.numel, weights.values())) < 1e7
            copy = {name: tensor.clone() for name, tensor in weights.items()} if small else None
            _ORIGINAL[model] = _sums(weights), copy, [tuple(table) for table in _hook_tables(model)]
        _restore(model)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    faults = []
    try:
        yield
    finally:
        for model in models:
            faults += _restore(model)
    assert not faults, faults[0]


def _restore(model: TransformerBridge) -> list[str]:
    """Undo changes to a model, and return what was changed."""
    sums, copy, hooks = _ORIGINAL[model]
    faults = []
    tables = _hook_tables(model)
    if [tuple(table) for table in tables] != hooks:
        faults.append(HOOK_LEFT)
        # TransformerLens' hooks, then those that were registered with PyTorch.
        for hook_point in model.hook_dict.values():
            hook_point.remove_hooks()
        for table, original in zip(tables, hooks):
            for key in set(table) - set(original):
                del table[key]
    weights = _weights(model)
    now = _sums(weights)
    if changed := [name for name in sums if now.get(name) != sums[name]]:
        faults.append(f"{WEIGHTS_CHANGED} ({changed[0]}): only activations may be, and on a copy")
        for name, tensor in (copy or _weights(load_model("smollm2", device="cpu"))).items():
            weights[name].copy_(tensor)
    freeze(model)
    return faults


def _weights(model: TransformerBridge) -> dict[str, Tensor]:
    """Each weight once; some are stored under several names."""
    named = {}
    for name, tensor in model.original_model.state_dict().items():
        named[tensor.data_ptr()] = name, tensor.detach()
    return dict(named.values())


def _sums(weights: dict[str, Tensor]) -> dict[str, int]:
    """A checksum of each weight's bits; of large weights, of about 10,000 of their entries."""
    sums = {}
    for name, tensor in weights.items():
        sample = tensor.flatten()[:: 1 + tensor.numel() // 10_000]
        sums[name] = int(sample.double().view(torch.int64).sum())
    return sums


def _hook_tables(model: TransformerBridge) -> list[dict]:
    """PyTorch's own tables of forward hooks and forward pre-hooks, two for each module."""
    tables = []
    for module in model.modules():
        tables += [module._forward_hooks, module._forward_pre_hooks]
    return tables

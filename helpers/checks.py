"""What the course assignments' checks are written with: comparisons that say what is wrong, and models put right afterwards.

Nothing here knows about points or answers. A check fails with an AssertionError whose message is meant for a student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from helpers.models.load import freeze, load_model

__all__ = ["near", "own_work", "shaped", "the_model", "tiny", "untouched"]

# Both outlive a reload of this module. What a model was when it was first seen: checksums of its weights, its hooks, and a
# copy of its weights if it is small.
_FIRST_SEEN: WeakKeyDictionary = globals().get("_FIRST_SEEN", WeakKeyDictionary())
_MADE: dict[tuple, TransformerBridge] = globals().get("_MADE", {})


def the_model() -> TransformerBridge:
    """The embedded model, loaded once."""
    if () not in _MADE:
        _MADE[()] = load_model("smollm2", device="cpu")
    return _MADE[()]


def tiny(architecture: str = "llama", seed: int = 0) -> TransformerBridge:
    """A random model of three layers with the embedded model's tokenizer: the checks' other model, and a fast one to try things on.

    Args:
        architecture: ``llama`` (RMSNorm, two heads share a key/value head) or ``gpt2`` (LayerNorm, biases).
        seed: of its weights.
    """
    if (architecture, seed) not in _MADE:
        _MADE[architecture, seed] = _random_model(architecture, seed)
    return _MADE[architecture, seed]


def _random_model(architecture: str, seed: int) -> TransformerBridge:
    tokenizer = the_model().tokenizer
    shared = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.bos_token_id,
    }
    if architecture == "llama":
        name, kind = "HuggingFaceTB/SmolLM2-135M-Instruct", LlamaForCausalLM
        sizes = {
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_size": 32,
        }
        config = LlamaConfig(**sizes, intermediate_size=64, max_position_embeddings=64, **shared)
    else:
        name, kind = "gpt2", GPT2LMHeadModel
        config = GPT2Config(
            n_layer=3, n_head=4, n_embd=32, n_positions=64, tie_word_embeddings=False, **shared
        )
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = kind(config).eval()
        with torch.no_grad():
            for parameter in hf.parameters():
                parameter.add_(
                    0.3 * torch.randn_like(parameter)
                )  # no bias left at 0, no norm weight at 1
    return freeze(
        TransformerBridge.boot_transformers(
            name, hf_model=hf, tokenizer=tokenizer, device="cpu", dtype=torch.float32
        )
    )


def shaped(value: object, shape: Sequence[int], what: str) -> Tensor:
    """The value, if it is a tensor of that shape with finite entries."""
    assert isinstance(value, Tensor), f"{what}: got {type(value).__name__}, expected a torch.Tensor"
    assert tuple(value.shape) == tuple(shape), (
        f"{what}: shape {tuple(value.shape)}, expected {tuple(shape)}"
    )
    assert value.dtype == torch.bool or value.isfinite().all(), (
        f"{what}: some values are not finite"
    )
    return value.detach().as_subclass(
        Tensor
    )  # a class of the student's own could compare equal to anything


def near(value: object, expected: object, message: str, tolerance: float = 1e-4) -> None:
    """Fail with the message unless value and expected agree, up to ``tolerance`` times the size of what is expected."""
    value, expected = (torch.as_tensor(side).detach().double() for side in (value, expected))
    assert value.shape == expected.shape, (
        f"{message} (shape {tuple(value.shape)}, expected {tuple(expected.shape)})"
    )
    worst = float((value - expected).abs().max())
    size = max(1.0, float(expected.abs().max()))
    assert worst <= tolerance * size, f"{message} (largest difference {worst:.3g})"


@contextmanager
def untouched(*models: TransformerBridge) -> Iterator[None]:
    """Fail if code in the block leaves a hook on a model or changes its weights; either way the model is as first seen after it.

    What earlier cells left behind is put right on the way in, so that it is not held against this block.
    """
    for model in models:
        if model not in _FIRST_SEEN:
            model.run_with_cache(
                torch.zeros(1, 2, dtype=torch.long)
            )  # its own hooks come with the first run
            weights = _weights(model)
            small = sum(map(torch.numel, weights.values())) < 1e7
            copy = {name: tensor.clone() for name, tensor in weights.items()} if small else None
            _FIRST_SEEN[model] = _sums(weights), copy, _hooks(model)
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
    sums, copy, hooks = _FIRST_SEEN[model]
    faults = []
    if _hooks(model) != hooks:
        faults.append(
            "a hook was left on the model: put it on with `with model.hooks(fwd_hooks=[...]):`, which takes it off again"
        )
        for hook_point in model.hook_dict.values():
            hook_point.remove_hooks()
        for module, before, after in zip(model.modules(), hooks, _hooks(model)):
            for kind, old, new in zip(
                (module._forward_hooks, module._forward_pre_hooks), before, after
            ):
                for key in set(new) - set(old):
                    del kind[key]
    weights = _weights(model)
    now = _sums(weights)
    if changed := [name for name in sums if now.get(name) != sums[name]]:
        faults.append(
            f"the model's weights were changed ({changed[0]}): only activations may be, and on a copy"
        )
        for name, tensor in (copy or _weights(load_model("smollm2", device="cpu"))).items():
            weights[name].copy_(tensor)
    freeze(model)
    return faults


def _weights(model: TransformerBridge) -> dict[str, Tensor]:
    """Every weight once: some are stored under several names."""
    named = {
        tensor.data_ptr(): (name, tensor.detach())
        for name, tensor in model.original_model.state_dict().items()
    }
    return dict(named.values())


def _sums(weights: dict[str, Tensor]) -> dict[str, int]:
    """A checksum of each weight's bits; of large weights, of some thousands of their entries."""
    return {
        name: int(
            tensor.flatten()[:: 1 + tensor.numel() // 10_000].double().view(torch.int64).sum()
        )
        for name, tensor in weights.items()
    }


def _hooks(model: TransformerBridge) -> list[tuple[tuple, tuple]]:
    return [
        (tuple(module._forward_hooks), tuple(module._forward_pre_hooks))
        for module in model.modules()
    ]


def own_work(function: Callable, *names: str) -> None:
    """Fail if a function calls a helper of this book that it is to replace."""
    used, waiting, seen = set(), [function], set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, FunctionType) or one in seen:
            continue
        seen.add(one)
        for name in _names(one.__code__):
            used.add(name)
            value = one.__globals__.get(name)
            if getattr(value, "__module__", "").startswith("helpers."):
                used.add(getattr(value, "__name__", name))  # imported under another name
            elif one.__globals__ is getattr(value, "__globals__", None):
                waiting.append(value)
    found = used & set(names)
    assert not found, (
        f"{function.__name__} is to be written out, and it calls the book's own {sorted(found)[0]}"
    )


def _names(code: CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)

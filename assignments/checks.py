"""Checks of the problem sets: comparisons that say what is wrong, models to test answers on.

Students get this file beside each notebook. A check fails with an AssertionError whose message is
meant for them; nothing here knows about points or answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from types import CodeType, FunctionType, ModuleType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from helpers.models.load import freeze, load_model

__all__ = [
    "Salted",
    "must_keep",
    "must_raise",
    "near",
    "own_work",
    "shaped",
    "the_model",
    "tiny",
    "untouched",
    "variant",
]

HOOK_LEFT = (
    "a hook was left on the model: put it on with `with model.hooks(fwd_hooks=[...]):`, "
    "which takes it off again"
)
WEIGHTS_CHANGED = "the model's weights were changed"

_MODELS: dict[tuple, TransformerBridge] = {}
# Of each model: checksums of its weights, a copy of them if it is small, and its hooks.
_ORIGINAL: WeakKeyDictionary = WeakKeyDictionary()


class Wrong(AssertionError):
    """A wrong value; ``brief`` says what is wrong without details of this case."""

    def __init__(self, message: str, brief: str = "") -> None:
        super().__init__(message)
        self.brief = brief or message


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


def shaped(value: object, shape: Sequence[int], what: str) -> Tensor:
    """``value`` as a plain tensor; fail unless it has this shape and finite entries."""
    if not isinstance(value, Tensor):
        brief = f"{what}: expected a torch.Tensor"
        raise Wrong(f"{brief}, got {type(value).__name__}", brief)
    if tuple(value.shape) != tuple(shape):
        got, expected = tuple(value.shape), tuple(shape)
        raise Wrong(f"{what}: shape {got}, expected {expected}", f"{what}: wrong shape")
    if value.is_floating_point() and not value.isfinite().all():
        raise Wrong(f"{what}: some values are not finite")
    return value.detach().as_subclass(Tensor)


def near(value: object, expected: object, message: str, tolerance: float = 1e-4) -> None:
    """Fail with ``message`` unless value = expected within tolerance · max(1, max |expected|)."""
    expected = torch.as_tensor(expected).detach().double()
    try:
        value = torch.as_tensor(value).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{message} (no number: {type(value).__name__})", message) from None
    if value.shape != expected.shape:
        shapes = f"(shape {tuple(value.shape)}, expected {tuple(expected.shape)})"
        raise Wrong(f"{message} {shapes}", message)
    worst = float((value - expected).abs().max()) if value.numel() else 0.0
    size = max(1.0, float(expected.abs().max())) if value.numel() else 1.0
    if not worst <= tolerance * size:
        raise Wrong(f"{message} (largest difference {worst:.3g})", message)


@contextmanager
def must_keep(value: list, message: str) -> Iterator[None]:
    """Fail with ``message`` if the block changes a list in place."""
    before = list(value)
    yield
    if value != before:
        raise Wrong(message)


@contextmanager
def must_raise(kind: type[Exception], message: str) -> Iterator[None]:
    """Fail with ``message`` unless the block raises an exception of this kind."""
    try:
        yield
    except kind:
        return
    raise Wrong(message)


def variant(student: str, **choices: Sequence) -> dict[str, object]:
    """One of each of the choices, drawn from a student's id: everybody has a case of their own."""
    drawn = {}
    for name, options in choices.items():
        digest = sha256(f"{student.strip().casefold()} {name}".encode()).digest()
        drawn[name] = options[int.from_bytes(digest[:8], "big") % len(options)]
    return drawn


class Salted(str):
    """A text whose place in a set depends on ``salt``, as that of any text does on the process."""

    __module__ = "checks"  # as notebooks import it: so the sandbox, which has no other, finds it

    def __new__(cls, text: str, salt: int) -> Salted:
        made = super().__new__(cls, text)
        made.salt = salt
        return made

    def __hash__(self) -> int:
        return hash((str(self), self.salt))

    def __eq__(self, other: object) -> bool:
        return str(self) == other

    def __reduce__(self) -> tuple:
        return Salted, (str(self), self.salt)


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


def own_work(function: Callable, *names: str) -> None:
    """Fail if a function, or one that it calls, uses the book's helpers of these names.

    It looks through decorators, partial functions, methods and closures. A function of your own may
    have the name of a helper.
    """
    waiting, seen = [function], {}
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one  # kept, so that its id stays its own
        if str(getattr(one, "__module__", "")).startswith("helpers."):
            if getattr(one, "__name__", "") in names:
                raise Wrong(_called(function, one.__name__))
        elif isinstance(one, FunctionType):
            if "site-packages" in one.__code__.co_filename:  # a library's, which calls no helper
                continue
            reached, used = _reached(one), _names(one.__code__)
            waiting += reached
            for module in reached:
                if isinstance(module, ModuleType) and module.__name__.startswith("helpers."):
                    waiting += [getattr(module, name, None) for name in used]
            if any(name.startswith("helpers.") for name in used):  # imported inside
                for name in used & set(names):
                    raise Wrong(_called(function, name))
        else:  # a decorated or partial function, a bound method, an object that can be called
            parts = [getattr(one, name, None) for name in ("__wrapped__", "func", "__func__")]
            parts += [vars(type(one)).get("__call__")]
            parts += one.args if isinstance(one, partial) else ()
            waiting += [part for part in parts if isinstance(part, (FunctionType, partial))]


def _called(function: Callable, name: str) -> str:
    mine = getattr(function, "__name__", "the function")
    return f"{mine} is to be written out, and it calls the book's own {name}"


def _reached(function: FunctionType) -> list:
    """What a function can reach: globals that it names, variables of its closure, defaults."""
    space = function.__globals__
    found = [space[name] for name in _names(function.__code__) if name in space]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    return [*found, *(function.__defaults__ or ()), getattr(function, "__wrapped__", None)]


def _names(code: CodeType) -> set[str]:
    """Every name that code uses, inner functions included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names

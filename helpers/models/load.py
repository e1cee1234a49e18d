"""Load a language model as a TransformerBridge, and facts about a loaded one.

The weights are those of the checkpoint, neither folded nor centred: both papers' equations are
about these, and processing would change what a feature vector or a scaled activation means.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from helpers.models.packed import PACKED, packed_model
from helpers.settings import MODEL_NAMES, SETTINGS, hub_name, refuse

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

transformers_logging.disable_progress_bar()  # progress bars would land in the published pages
logging.getLogger("transformer_lens").setLevel(logging.ERROR)

# A model that this process was forked with (``book/_ext/kernels.py``), by what it was loaded by.
INHERITED: dict[tuple[str, str, torch.dtype], TransformerBridge] = {}


def load_model(
    name: str = SETTINGS.model, device: str = SETTINGS.device, dtype: torch.dtype = torch.float32
) -> TransformerBridge:
    """A model in evaluation mode, its weights frozen and unprocessed.

    Args:
        name: ``smollm2`` (the embedded model, no network), ``gpt2``, ``gpt2-xl``, ``pythia-1.4b``,
            ``gpt-neo-1.3b``, or another name that TransformerLens knows.
        device: ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``; ``auto`` is CUDA if available.
        dtype: of the weights; the book's numbers are in 32-bit floats.

    Raises:
        ValueError: unknown name, or a device that is not available.
        TypeError: a dtype that is none of PyTorch's floating-point ones.
        ConnectionError: the model is not in the local cache and cannot be downloaded.
    """
    # Imported here: it brings in every architecture that it knows, and most callers need none.
    from transformer_lens.model_bridge import TransformerBridge

    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype = {dtype!r} must be one of PyTorch's, such as torch.float32.")
    official = hub_name(name)
    place = resolve_device(device)
    if (name, device, dtype) in INHERITED:
        return INHERITED.pop((name, device, dtype))  # once: whoever has it may change it
    options = {"device": str(place), "dtype": dtype}
    if name in PACKED:
        folder = packed_model(name)
        options["hf_model"] = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="eager", local_files_only=True
        ).to(place)  # the bridge leaves a model that it is given on the device where it is
        options["tokenizer"] = AutoTokenizer.from_pretrained(
            folder, add_bos_token=True, local_files_only=True
        )
    try:
        return freeze(TransformerBridge.boot_transformers(official, **options))
    except OSError as error:
        unreachable = ConnectionError(
            f"{official} is neither on this machine nor can it be downloaded from the model hub. "
            "Connect to the network and try again, or set BOOK_MODEL=smollm2, which needs no hub. "
            f"The error was: {error}"
        )
        unreachable.__cause__ = error
        refuse(unreachable)


def freeze(model: TransformerBridge) -> TransformerBridge:
    """Set evaluation mode, freeze the weights (only interventions are trained), and check it.

    A formula that does not hold is an error where a helper needs it, see
    :mod:`helpers.models.formulas`.
    """
    from helpers.models.formulas import facts  # imports TransformerLens, as load_model does

    model.eval()
    model.original_model.requires_grad_(False)
    facts(model)
    return model


def resolve_device(name: str) -> torch.device:
    """The torch device for a name, after a check that it is available.

    Raises:
        ValueError: it is not.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name!r} is no device: cpu, mps, cuda, cuda:N or auto are.") from error
    if device.type == "mps" and not torch.backends.mps.is_available():
        refuse(ValueError("device 'mps' is not available. Set BOOK_DEVICE=cpu or auto."))
    if device.type not in ("cpu", "mps", "cuda"):
        raise ValueError(
            f"{name!r} is no device that computes: cpu, mps, cuda, cuda:N or auto are."
        )
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= n_cuda:
        seen = f"device {name!r} is not available: torch sees {n_cuda} CUDA devices. "
        refuse(ValueError(f"{seen}Set BOOK_DEVICE=cpu or auto."))
    return device


def device_of(model: TransformerBridge) -> torch.device:
    """The device of a model's unembedding, where its logits are."""
    return model.W_U.device


def fingerprint(model: TransformerBridge) -> str:
    """A short hash of a model's weights, from a sample of each tensor's values.

    It tells a model from another one of the same shape.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.original_model.state_dict().items()):
        values = weight.flatten()
        sample = values[:: max(1, values.numel() // 16)].detach().to("cpu", torch.float32)
        digest.update(f"{name}{tuple(weight.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def describe(model: TransformerBridge) -> str:
    """One line for a chapter's set-up cell: what is loaded, where, and in which precision."""
    cfg = model.cfg
    short_names = {official: name for name, official in MODEL_NAMES.items()}
    name = short_names.get(cfg.model_name, cfg.model_name)
    norm = {"RMS": "RMSNorm", "LN": "LayerNorm"}.get(cfg.normalization_type, cfg.normalization_type)
    shape = (
        f"{cfg.n_layers} layers, {cfg.n_heads} heads of {cfg.d_head}, d_model {cfg.d_model}, "
        f"vocabulary {cfg.d_vocab:,}, {norm}"
    )
    dtype = str(model.W_U.dtype).removeprefix("torch.")
    checkpoint = f" · checkpoint {PACKED[name].sha256[:12]}" if name in PACKED else ""
    return f"{name} ({shape}) · {device_of(model)} · {dtype}{checkpoint}"

"""Load a language model as a TransformerBridge, turn prompts into tokens, and read last-position logits.

The weights are those of the checkpoint: no folding, no centring. That is what both papers' equations speak of, and
processing would change what a feature vector or a scaled activation means.
"""

from __future__ import annotations

import hashlib
import logging

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from helpers.models.smollm2 import GGUF_SHA256, embedded_model
from helpers.settings import MODEL_NAMES, SETTINGS, hub_name

transformers_logging.disable_progress_bar()  # else the bars of loading land in the published pages
logging.getLogger("transformer_lens").setLevel(logging.ERROR)


def load_model(
    name: str = SETTINGS.model, device: str = SETTINGS.device, dtype: torch.dtype = torch.float32
) -> TransformerBridge:
    """A model in evaluation mode, weights frozen and unprocessed.

    Args:
        name: ``smollm2`` (the embedded model, no network), ``gpt2``, ``gpt2-xl``, ``pythia-1.4b``, ``gpt-neo-1.3b``, or
            another name that TransformerLens knows.
        device: ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``; ``auto`` takes CUDA when it is there.
        dtype: of the weights; the book's numbers are in 32-bit floats.

    Raises:
        ValueError: the name is unknown, or the device is not there.
        ConnectionError: a model of the hub is neither in the local cache nor to be fetched.
    """
    official = hub_name(name)
    place = resolve_device(device)
    if name == "smollm2":
        folder = embedded_model()
        hf = LlamaForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="eager", local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, add_bos_token=True, local_files_only=True)
        model = TransformerBridge.boot_transformers(
            official, hf_model=hf, tokenizer=tokenizer, device=str(place), dtype=dtype
        )
    else:
        try:
            model = TransformerBridge.boot_transformers(official, device=str(place), dtype=dtype)
        except OSError as error:
            raise ConnectionError(
                f"{official} is not on this machine and could not be fetched from the model hub. Connect to the network and try "
                f"again, or run with BOOK_MODEL=smollm2, which needs no hub. The hub's library said: {error}"
            ) from error
    return freeze(model)


def freeze(model: TransformerBridge) -> TransformerBridge:
    """Evaluation mode and no gradients for weights: in this book only interventions are trained."""
    model.eval()
    for parameter in model.original_model.parameters():
        parameter.requires_grad_(False)
    return model


def resolve_device(name: str) -> torch.device:
    """The device that a name means on this machine.

    Raises:
        ValueError: that device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise ValueError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices. Use BOOK_DEVICE=cpu or auto."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not there. Use BOOK_DEVICE=cpu or auto.")
    return device


def device_of(model: TransformerBridge) -> torch.device:
    return model.W_U.device


def kv_heads(model: TransformerBridge) -> int:
    """Number of key/value heads: fewer than ``n_heads`` where several heads share one (grouped-query attention)."""
    return getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads


def fingerprint(model: TransformerBridge) -> str:
    """A short checksum of the weights: every tensor's name, shape and a few of its values.

    Tells an intervention's own model from another one of the same shape.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.original_model.state_dict().items()):
        values = weight.flatten()
        sample = values[:: max(1, values.numel() // 16)].detach().to("cpu", torch.float32)
        digest.update(f"{name}{tuple(weight.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def describe(model: TransformerBridge) -> str:
    """One line for a chapter's set-up cell: what is loaded, where, in which precision."""
    cfg = model.cfg
    name = {official: name for name, official in MODEL_NAMES.items()}.get(
        cfg.model_name, cfg.model_name
    )
    weights = f" · weights {GGUF_SHA256[:12]}" if name == "smollm2" else ""
    norm = {"RMS": "RMSNorm", "LN": "LayerNorm"}.get(cfg.normalization_type, cfg.normalization_type)
    return (
        f"{name} ({cfg.n_layers} layers, {cfg.n_heads} heads of {cfg.d_head}, d_model {cfg.d_model}, vocabulary {cfg.d_vocab:,}, "
        f"{norm}) · {device_of(model)} · {str(model.W_U.dtype).removeprefix('torch.')}{weights}"
    )

"""Load a language model as a TransformerBridge, turn prompts into tokens, and read last-position logits.

The weights are those of the checkpoint: no folding, no centring. That is what both papers' equations speak of, and
processing would change what a feature vector or a scaled activation means.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from helpers.embedded import GGUF_SHA256, embedded_model
from helpers.settings import MODEL_NAMES, SETTINGS, hub_name

PAD = -1  # fills up the shorter rows of a batch of mixed lengths; no tokenizer has this id

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
        hf = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", local_files_only=True).to(place)  # the bridge leaves a model that it is given where it is
        tokenizer = AutoTokenizer.from_pretrained(folder, add_bos_token=True, local_files_only=True)
        model = TransformerBridge.boot_transformers(official, hf_model=hf, tokenizer=tokenizer, device=str(place), dtype=dtype)
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
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices. Use BOOK_DEVICE=cpu or auto.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not there. Use BOOK_DEVICE=cpu or auto.")
    return device


def tokenize(model: TransformerBridge, prompts: Sequence[str]) -> Int[Tensor, "batch pos"]:
    """Token ids of prompts of one length, one beginning-of-sequence token in front of each.

    Raises:
        ValueError: there is no prompt, or their lengths differ; the message says which.
    """
    if isinstance(prompts, str) or not prompts:
        raise ValueError("tokenize takes a non-empty list of prompts.")
    bos = model.tokenizer.bos_token_id
    if bos is None:
        raise ValueError(f"the tokenizer of {model.cfg.model_name} has no beginning-of-sequence token.")
    rows = [[bos, *model.tokenizer.encode(prompt, add_special_tokens=False)] for prompt in prompts]
    if len(lengths := {len(row) for row in rows}) > 1:
        example = {len(row): prompt for row, prompt in zip(rows, prompts)}
        listed = "; ".join(f"{length} tokens: {example[length]!r}" for length in sorted(lengths))
        raise ValueError(f"the prompts have unequal lengths ({listed}). Interventions tied to positions need one length.")
    return torch.tensor(rows, device=device_of(model))


def single_token(model: TransformerBridge, text: str) -> int:
    """The id of a text that is one token; mind the leading space, which most tokenizers make part of a word.

    Raises:
        ValueError: the text is none or several tokens.
    """
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        pieces = [model.tokenizer.decode([i]) for i in ids]
        raise ValueError(f"{text!r} is {len(ids)} tokens {pieces} for {model.cfg.model_name}; one token is needed here.")
    return ids[0]


def token_strings(model: TransformerBridge, tokens: Int[Tensor, "pos"]) -> list[str]:
    """Each token as text, spaces shown as they are."""
    return [model.tokenizer.decode([int(token)]) for token in tokens]


def last_logits(model: TransformerBridge, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
    """Logits of the next token, for the last position alone: the others' are never computed.

    Hooks that are on the model act as they do in ``model(tokens)``. Rows filled up with ``PAD`` on the right (see
    ``helpers.padding``) give the logits of their own last token, which sees nothing of the filling.
    """
    if is_padded(tokens):
        # One common set of positions, then each row's own among them: logits_to_keep knows no other way.
        ends, own = ((tokens != PAD).sum(-1) - 1).unique(return_inverse=True)
        logits = model.original_model(input_ids=tokens.clamp_min(0), logits_to_keep=ends, use_cache=False).logits
        return logits[torch.arange(len(tokens), device=tokens.device), own]
    # Asked for by a tensor: a slice would reach the unembedding as a view with gaps, which torch multiplies row by row,
    # reading the whole of W_U for each.
    last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
    return model.original_model(input_ids=tokens, logits_to_keep=last, use_cache=False).logits[:, -1]


def is_padded(tokens: Int[Tensor, "batch pos"]) -> bool:
    """Whether any row is filled up with ``PAD``."""
    return bool((tokens[:, -1] == PAD).any())


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
    name = {official: name for name, official in MODEL_NAMES.items()}.get(cfg.model_name, cfg.model_name)
    weights = f" · weights {GGUF_SHA256[:12]}" if name == "smollm2" else ""
    norm = {"RMS": "RMSNorm", "LN": "LayerNorm"}.get(cfg.normalization_type, cfg.normalization_type)
    return (
        f"{name} ({cfg.n_layers} layers, {cfg.n_heads} heads of {cfg.d_head}, d_model {cfg.d_model}, vocabulary {cfg.d_vocab:,}, "
        f"{norm}) · {device_of(model)} · {str(model.W_U.dtype).removeprefix('torch.')}{weights}"
    )

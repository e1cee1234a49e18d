"""How time grows with the size of the work: exponents fitted to times of random models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.fits import ours
from benchmarks.timing import timed
from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.many import Job, fit_many
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.load import device_of, freeze
from helpers.observable_propagation.features import head_features
from helpers.prompts.prompts import Prompts
from helpers.settings import MODEL_NAMES

BASE = {"prompts": 8, "tokens": 16, "settings": 1, "heads": 8, "d_model": 256, "layers": 4}
STEPS = 2
OBSERVABLES = 64
# What grows -> its values. Sizes at which the work outweighs the calls: exponents are of the work.
AXES = {
    "prompts": (8, 16, 32, 64),
    "tokens": (16, 32, 64, 128),
    "settings": (2, 4, 8, 16),
    "heads": (16, 32, 64, 128),
    "parameters": (256, 384, 512, 768),  # widths; the model's size is what counts
}


def random_model(
    tokenizer, device: torch.device, *, layers: int, heads: int, d_model: int
) -> TransformerBridge:
    """A random Llama with heads of 32 and a small vocabulary."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": d_model,
        "intermediate_size": 3 * d_model,
        "head_dim": 32,
        "vocab_size": 512,
    }
    counts = {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
    }
    config = LlamaConfig(
        **sizes, **counts, max_position_embeddings=1024, bos_token_id=0, eos_token_id=0
    )
    config._attn_implementation = "eager"
    boot = {
        "hf_model": LlamaForCausalLM(config).eval(),
        "tokenizer": tokenizer,
        "device": str(device),
    }
    return freeze(TransformerBridge.boot_transformers(MODEL_NAMES["smollm2"], **boot))


def random_prompts(model: TransformerBridge, n_prompts: int, n_tokens: int) -> Prompts:
    """Prompts of random tokens, which share no beginning, and answers."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, model.cfg.d_vocab, (n_prompts, n_tokens), generator=draw).to(
        device_of(model)
    )
    tokens[:, 0] = torch.arange(n_prompts) % model.cfg.d_vocab
    answers = tokens.new_ones(n_prompts)
    return Prompts(*(("",) * n_prompts,) * 3, tokens, answers, answers + 1)


def work(tokenizer, device: torch.device, axis: str, value: int) -> tuple[float, Callable[[], Any]]:
    """The size of the work, and the work, at one point of an axis: a short fit; for heads all feature vectors."""
    sizes = BASE | {"d_model" if axis == "parameters" else axis: value}
    model = random_model(
        tokenizer, device, **{name: sizes[name] for name in ("layers", "heads", "d_model")}
    )
    size = value
    if axis == "parameters":
        size = sum(
            p.numel()
            for name, p in model.original_model.named_parameters()
            if p.shape[0] != model.cfg.d_vocab
        )
    if axis == "heads":
        m = torch.randn(
            OBSERVABLES, model.cfg.d_model, generator=torch.Generator().manual_seed(0)
        ).to(device)
        return size, lambda: head_features(model, m)
    prompts = random_prompts(model, sizes["prompts"], sizes["tokens"])
    jobs = [
        Job(ActivScalar(Points.of(model, prompts.n_pos)), Objective(1.0, 1.0), 1e-2, seed)
        for seed in range(sizes["settings"])
    ]
    if axis == "settings":
        return size, lambda: fit_many(model, jobs, prompts, epochs=STEPS, at_once=len(jobs))
    return size, lambda: ours(model, jobs, prompts, STEPS)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """The exponent p of seconds ∝ size^p by least squares on logarithms, and its 95 % interval (Student's t).

    Raises:
        ValueError: fewer than three sizes, which leave nothing to judge the fit by.
    """
    if len(set(sizes)) < 3:
        raise ValueError(
            f"an exponent with an interval needs three different sizes; there are {len(set(sizes))}."
        )
    fitted = stats.linregress(np.log(sizes), np.log(seconds))
    half = stats.t.ppf(0.975, len(sizes) - 2) * fitted.stderr
    return {
        "exponent": fitted.slope,
        "exponent_low": fitted.slope - half,
        "exponent_high": fitted.slope + half,
    }


def grow(
    tokenizer, device: torch.device, axis: str, *, repeats: int = 3, points: int = 4
) -> list[dict[str, Any]]:
    """A row for each size, and one with the exponent; sizes take turns, the least of the repeats counts."""
    works = [work(tokenizer, device, axis, value) for value in AXES[axis][:points]]
    for _, run in works:
        run()
    times = [[timed(run, device) for _, run in works] for _ in range(repeats)]
    rows = []
    for index, (size, _) in enumerate(works):
        runs = [turn[index] for turn in times]
        seconds = {
            "seconds": min(run.seconds for run in runs),
            "median": float(np.median([run.seconds for run in runs])),
        }
        rows.append(
            {
                "variant": axis,
                "size": size,
                **seconds,
                "cpu_seconds": min(run.cpu for run in runs),
                "repeats": repeats,
            }
        )
    found = exponent([row["size"] for row in rows], [row["seconds"] for row in rows])
    return [*rows, {"variant": axis, **found, "note": f"exponent over {len(rows)} sizes"}]

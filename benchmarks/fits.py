"""Ways of fitting: each takes jobs, one after the other or together, and leaves the learned θ in their interventions.

The plain ones do by TransformerLens' or nnsight's own means what ``helpers.activation_scaling.fitting`` and ``helpers.activation_scaling.many`` do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.many import Job, fit_many
from helpers.models.load import device_of
from helpers.models.run import HOOKS
from helpers.models.smollm2 import embedded_model
from helpers.prompts.prompts import Prompts
from helpers.settings import hub_name


def plain(model: TransformerBridge, jobs: Sequence[Job], prompts: Prompts, epochs: int) -> None:
    """A prompt at a time, one β after the other, the base run again in each step, logits of all positions."""
    for job in jobs:
        optimizer = _start(job, prompts)
        for _ in range(epochs):
            optimizer.zero_grad()
            for row in range(len(prompts)):
                one = prompts.at([row])
                with torch.no_grad():
                    base = model(one.tokens)[:, -1]
                plus, minus = (
                    model.run_with_hooks(one.tokens, fwd_hooks=_hooks(job, beta))[:, -1]
                    for beta in (1.0, -1.0)
                )
                (_loss(job, plus, minus, base, one) / len(prompts)).backward()
            optimizer.step()


def batched(model: TransformerBridge, jobs: Sequence[Job], prompts: Prompts, epochs: int) -> None:
    """All prompts and both β in one batch, the base run once, logits of all positions."""
    tokens = prompts.tokens.repeat(2, 1)
    with torch.no_grad():
        base = model(prompts.tokens)[:, -1]
    for job in jobs:
        optimizer = _start(job, prompts)
        for _ in range(epochs):
            optimizer.zero_grad()
            logits = model.run_with_hooks(tokens, fwd_hooks=_hooks(job, _signs(job, prompts)))[
                :, -1
            ]
            _loss(job, *logits.chunk(2), base, prompts).backward()
            optimizer.step()


def nnsight(
    hf: PreTrainedModel, tokenizer, jobs: Sequence[Job], prompts: Prompts, epochs: int
) -> None:
    """The batched loop in nnsight, logits of the last position; needs the extra ``bench``."""
    from nnsight import TransformersModel

    traced = TransformersModel(hf, task="text-generation", tokenizer=tokenizer)
    inner, plain_inner = getattr(traced, hf.base_model_prefix), hf.base_model
    blocks, plain_blocks = (
        (inner.h, plain_inner.h)
        if hasattr(plain_inner, "h")
        else (inner.layers, plain_inner.layers)
    )
    attention = next(
        name for name in ("attn", "self_attn", "attention") if hasattr(plain_blocks[0], name)
    )
    tokens = prompts.tokens.repeat(2, 1)
    with torch.no_grad():
        base = hf(prompts.tokens, logits_to_keep=1).logits[:, -1]
    for job in jobs:
        optimizer, beta = _start(job, prompts), _signs(job, prompts)
        theta = job.intervention.theta
        for _ in range(epochs):
            optimizer.zero_grad()
            with traced.trace(tokens, logits_to_keep=1, use_cache=False):
                for layer in range(len(plain_blocks)):
                    attn = getattr(blocks[layer], attention)
                    attn.output = (
                        _edit(job, attn.output[0], theta["attn_out"][layer], beta),
                        *attn.output[1:],
                    )
                    mlp = blocks[layer].mlp
                    mlp.output = _edit(job, mlp.output, theta["mlp_out"][layer], beta)
                logits = traced.output.logits[:, -1].save()
            _loss(job, *logits.chunk(2), base, prompts).backward()
            optimizer.step()


def ours(model: TransformerBridge, jobs: Sequence[Job], prompts: Prompts, epochs: int) -> None:
    """``helpers.activation_scaling.fitting.fit``, one job after the other."""
    for job in jobs:
        how = {"learning_rate": job.learning_rate, "seed": job.seed, "initial_std": job.initial_std}
        fit(model, job.intervention, prompts, job.objective, epochs=epochs, **how)


def reduced(model: TransformerBridge, jobs: Sequence[Job], prompts: Prompts, epochs: int) -> None:
    """The same with matrix products in bfloat16; θ, norms, softmax and the objective stay in 32 bits."""
    with torch.autocast(device_of(model).type, dtype=torch.bfloat16):
        ours(model, jobs, prompts, epochs)


def together(
    model: TransformerBridge, jobs: Sequence[Job], prompts: Prompts, epochs: int, at_once: int
) -> None:
    """``helpers.activation_scaling.many.fit_many``, so many jobs in a batch."""
    for result in fit_many(model, jobs, prompts, epochs=epochs, at_once=at_once).results:
        if isinstance(result, FloatingPointError):
            raise result


def plain_hf(name: str, device: torch.device) -> PreTrainedModel:
    """The model as Hugging Face's own, for those who do not go through TransformerLens."""
    source = embedded_model() if name == "smollm2" else hub_name(name)
    hf = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    return hf.to(device).eval().requires_grad_(False)


def _start(job: Job, prompts: Prompts) -> torch.optim.Optimizer:
    job.intervention.to(prompts.tokens.device)
    job.intervention.reset(job.seed, job.initial_std)
    return torch.optim.Adam(job.intervention.parameters(), lr=job.learning_rate)


def _signs(job: Job, prompts: Prompts) -> Tensor:
    return (
        job.intervention.vec()
        .new_tensor([1.0, -1.0])
        .repeat_interleave(len(prompts))
        .view(-1, 1, 1)
    )


def _edit(job: Job, h: Tensor, theta: Tensor, beta: float | Tensor) -> Tensor:
    return (
        h * (1 + beta * theta.unsqueeze(-1))
        if isinstance(job.intervention, ActivScalar)
        else h + beta * theta
    )


def _hooks(job: Job, beta: float | Tensor) -> list:
    return [
        (
            HOOKS[site].format(layer=layer),
            lambda h, hook, theta=theta[layer]: _edit(job, h, theta, beta),
        )
        for site, theta in job.intervention.theta.items()
        for layer in range(len(theta))
    ]


def _loss(job: Job, plus: Tensor, minus: Tensor, base: Tensor, prompts: Prompts) -> Tensor:
    return -job.objective.terms(
        job.intervention.vec(), plus, minus, base, prompts.correct, prompts.wrong
    )["psi"]

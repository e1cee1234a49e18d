"""Direct logit attribution: what each part of a model writes towards a weighted sum of logits.

Logits are linear in the residual stream after the last block once the final norm's σ is held at its
value, and that stream is a sum: what embedding, heads and MLPs wrote into it (Nanda, 2022). A
weighted sum n of logits is given as m = W_U n in [d_model] and the constant n·b_U, for all prompts
or for each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import rows, vectors
from helpers.models.load import per_head
from helpers.models.norms import Norm
from helpers.models.run import read_activations
from helpers.models.tokens import at_ends, check_tokens

Vectors = Float[Tensor, "#batch d_model"]


@dataclass(frozen=True)
class Attribution:
    """A weighted sum of logits at each prompt's last token, as a sum of parts, in nats.

    Attributes:
        embedding: what the residual stream holds before the first block.
        heads: by the token that a head reads; value biases included.
        attention_biases: b_O of each layer.
        mlps: each layer's MLP, bias included.
        constant: biases of the final norm and of the unembedding.
    """

    embedding: Float[Tensor, " batch"]
    heads: Float[Tensor, "batch layer head source"]
    attention_biases: Float[Tensor, "batch layer"]
    mlps: Float[Tensor, "batch layer"]
    constant: Float[Tensor, " batch"]

    def total(self) -> Float[Tensor, " batch"]:
        """The sum of all parts, which is the weighted sum of logits itself."""
        by_layer = self.heads.sum((2, 3)) + self.attention_biases + self.mlps
        return self.embedding + by_layer.sum(1) + self.constant


def logit_diff_vector(
    model: TransformerBridge, correct: Int[Tensor, " batch"], wrong: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
    """Each prompt's logit difference, correct − wrong, as m = W_U n and n·b_U."""
    if correct.shape != wrong.shape:
        raise ValueError(f"{len(correct)} correct and {len(wrong)} wrong answers must match.")
    for answers in (correct, wrong):
        if not rows(answers, model.cfg.d_vocab).equal(answers):
            raise ValueError(f"answers must be ids of tokens, not {answers.tolist()}.")
    difference = model.W_U[:, correct] - model.W_U[:, wrong]
    return difference.T, model.b_U[correct] - model.b_U[wrong]


def readout(
    model: TransformerBridge,
    x: Float[Tensor, "*batch d_model"],
    m: Float[Tensor, "*#batch d_model"],
    bias: Float[Tensor, "*#batch"] | float = 0.0,
) -> tuple[Float[Tensor, "*batch d_model"], Float[Tensor, "*#batch"]]:
    """r and c with n·logits = r·x + c for the residual stream x after the last block.

    r = P(w ⊙ m)/σ(x) and c = b·m + n·b_U, with w, b, P, σ those of
    :class:`helpers.models.norms.Norm`. Exact at x itself; r holds σ at its value there.
    """
    norm = Norm.of(model, "ln_final")
    return norm.fixed(m, x), bias + (0.0 if norm.bias is None else m @ norm.bias)


@torch.no_grad()
def direct_attribution(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    m: Vectors | Float[Tensor, " d_model"],
    bias: Float[Tensor, "*#batch"] | float = 0.0,
    *,
    batch_size: int = 64,
) -> Attribution:
    """Split a weighted sum of logits at the last token into what each part wrote there.

    Args:
        tokens: prompts, also of several lengths.
        m, bias: W_U n and n·b_U, one for all prompts or one for each.
        batch_size: prompts in one forward pass.
    """
    check_tokens(model, tokens)
    m, bias = vectors("m", m, model.cfg.d_model), torch.as_tensor(bias).to(m)
    if m.ndim > 1 and m.shape != (len(tokens), model.cfg.d_model):
        raise ValueError(f"m has shape {tuple(m.shape)} for {len(tokens)} prompts.")
    if bias.shape not in ((), (1,), (len(tokens),)) or not bias.isfinite().all():
        raise ValueError(f"bias must be a finite number, or one for each prompt, not {bias}.")
    layers = range(model.cfg.n_layers)
    names = ["ln_final.hook_in", "blocks.0.hook_resid_pre"]
    for layer in layers:
        names += [f"blocks.{layer}.{hook}" for hook in ("hook_mlp_out", "attn.hook_v")]
        names.append(f"blocks.{layer}.attn.hook_pattern")
    kept, _ = read_activations(model, tokens, names, batch_size=batch_size)
    r, constant = readout(model, at_ends(kept["ln_final.hook_in"], tokens), m, bias)

    heads, biases, mlps = [], [], []
    for layer in layers:
        # A head writes Σ pattern · v W_O; r goes through W_O once, and meets each source's v there.
        attention = model.blocks[layer].attn
        through = torch.einsum("hem,bm->bhe", attention.W_O, r)
        values = per_head(model, kept[f"blocks.{layer}.attn.hook_v"], dim=2)
        pattern = at_ends(kept[f"blocks.{layer}.attn.hook_pattern"], tokens, dim=2)
        heads.append(torch.einsum("bhs,bshe,bhe->bhs", pattern, values, through))
        biases.append(r.new_zeros(len(r)) if attention.b_O is None else r @ attention.b_O)
        mlps.append((at_ends(kept[f"blocks.{layer}.hook_mlp_out"], tokens) * r).sum(-1))
    return Attribution(
        embedding=(at_ends(kept["blocks.0.hook_resid_pre"], tokens) * r).sum(-1),
        heads=torch.stack(heads, 1),
        attention_biases=torch.stack(biases, 1),
        mlps=torch.stack(mlps, 1),
        constant=torch.as_tensor(constant).to(r).expand(len(r)),
    )

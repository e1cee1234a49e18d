"""Direct logit attribution: what each part of a model writes towards a weighted sum of logits.

Logits are linear in the residual stream after the last block once the final norm's σ is held at its
value, and that stream is a sum: what embedding, heads and MLPs wrote into it (Nanda, 2022). A
weighted sum n of logits is given as m = W_U n in [d_model] and the constant n·b_U, for all prompts
or for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.blocks import norm_after, per_head
from helpers.models.checks import checked, rows, vectors
from helpers.models.formulas import facts, require
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
        attention_biases: b_O of each layer, and the bias of a norm after it.
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


@checked
def token_vectors(
    model: TransformerBridge, tokens: Int[Tensor, "*n"], at: Float[Tensor, "*n"] | None = None
) -> tuple[Float[Tensor, "*n d_model"], Float[Tensor, "*n"]]:
    """Vectors v and constants c with logit = v·ln_final(x) + c, for each token.

    Args:
        tokens: ids.
        at: their logits, needed where a model caps its logits: then v is the exact gradient there,
            and v, c are the tangent, which is exact at that input alone.

    Raises:
        ValueError: capped logits and no ``at``, or logits that are not linear in ln_final(x).
    """
    found = require(model, "logits")
    if not rows(tokens.flatten(), model.cfg.d_vocab, "token").equal(tokens.flatten()):
        raise ValueError(f"tokens must be ids from 0 on, not {tokens.tolist()}.")
    vectors, constants = model.W_U[:, tokens].movedim(0, -1), model.b_U[tokens]
    if found.logit_scale != 1:
        vectors, constants = found.logit_scale * vectors, found.logit_scale * constants
    if found.logit_cap is None:
        return vectors, constants
    if at is None:
        raise ValueError(
            f"{model.cfg.model_name} caps its logits at {found.logit_cap:g}, so no vector reads "
            "them on every input: give the logits at which to take the gradient."
        )
    slope = 1 - (at / found.logit_cap) ** 2
    uncapped = found.logit_cap * (at / found.logit_cap).atanh()
    return slope[..., None] * vectors, at - slope * (uncapped - constants)


@checked
def logit_diff_vector(
    model: TransformerBridge,
    correct: Int[Tensor, " batch"],
    wrong: Int[Tensor, " batch"],
    logits: Float[Tensor, "batch d_vocab"] | None = None,
) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
    """Each prompt's logit difference, correct − wrong, as a vector m = W_U n and a constant n·b_U.

    Args:
        logits: where to take the gradient if the model caps its logits.
    """
    both = torch.stack([correct, wrong])
    at = None if logits is None else logits.gather(1, both.T).T
    vectors, constants = token_vectors(model, both, at)
    return vectors[0] - vectors[1], constants[0] - constants[1]


@checked
def through_attention(
    model: TransformerBridge,
    layer: int,
    r: Float[Tensor, "*batch d_model"],
    activation: Callable[[str], Float[Tensor, "*batch d_model"]],
) -> tuple[Float[Tensor, "*batch d_model"], Float[Tensor, "*batch"]]:
    """r' and c with r·(what attention writes) = r'·(z W_O + b_O) + c, any norm's σ held.

    Args:
        r: reads the residual stream.
        activation: gives that of a hook where r reads; only :func:`post_norm_inputs` are asked for.
    """
    after, scale = norm_after(model, layer, "attn"), facts(model).scales["attn"]
    r = r if scale == 1 else scale * r
    if after is None:
        return r, r.new_zeros(r.shape[:-1])
    constant = r.new_zeros(r.shape[:-1]) if after.bias is None else r @ after.bias
    return after.fixed(r, activation(f"{after.name}.hook_in")), constant


def post_norm_inputs(model: TransformerBridge) -> list[str]:
    """Hooks at the inputs of the norms after attention; most models have none."""
    norms = (norm_after(model, layer, "attn") for layer in range(model.cfg.n_layers))
    return [f"{norm.name}.hook_in" for norm in norms if norm is not None]


@checked
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
@checked
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

    Raises:
        ValueError: a model in which the parts would not be these.
    """
    check_tokens(model, tokens)
    m, bias = vectors("m", m, model.cfg.d_model), torch.as_tensor(bias).to(m)
    if bias.shape not in ((), (1,), (len(tokens),)) or not bias.isfinite().all():
        raise ValueError(f"bias must be a finite number, or one for each prompt, not {bias}.")
    require(model, "norms", "values", "attention", "stream", "logits")
    layers = range(model.cfg.n_layers)
    names = ["ln_final.hook_in", "blocks.0.hook_resid_pre"]
    for layer in layers:
        names += [f"blocks.{layer}.{hook}" for hook in ("hook_mlp_out", "attn.hook_v")]
        names.append(f"blocks.{layer}.attn.hook_pattern")
    names += post_norm_inputs(model)
    kept, _ = read_activations(model, tokens, names, batch_size=batch_size)

    def at_end(name: str, dim: int = 1) -> Tensor:
        return at_ends(kept[name], tokens, dim)

    r, constant = readout(model, at_end("ln_final.hook_in"), m, bias)
    heads, biases, mlps = [], [], []
    for layer in layers:
        # A head writes Σ pattern · v W_O; r goes through W_O once, and meets each source's v there.
        attention = model.blocks[layer].attn
        own, rest = through_attention(model, layer, r, at_end)
        through = torch.einsum("hem,bm->bhe", attention.W_O, own)
        values = per_head(model, kept[f"blocks.{layer}.attn.hook_v"], dim=2)
        pattern = at_end(f"blocks.{layer}.attn.hook_pattern", dim=2)
        heads.append(torch.einsum("bhs,bshe,bhe->bhs", pattern, values, through))
        biases.append(rest if attention.b_O is None else rest + own @ attention.b_O)
        mlps.append((at_end(f"blocks.{layer}.hook_mlp_out") * r).sum(-1))
    return Attribution(
        embedding=(at_end("blocks.0.hook_resid_pre") * r).sum(-1),
        heads=torch.stack(heads, 1),
        attention_biases=torch.stack(biases, 1),
        mlps=torch.stack(mlps, 1),
        constant=torch.as_tensor(constant).to(r).expand(len(r)),
    )

"""Interventions on activations: scale them (Eq. 5) or add vectors to them (Eq. 4), by hooks.

Equations are those of the activation-scaling paper. θ are the parameters and β is the strength: 1
steers towards the correct answer, −1 towards the wrong one, 0 leaves the model alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.points import Points
from helpers.models.checks import checked, real, whole
from helpers.models.hooks import hooked, padded_ends
from helpers.models.prefix import Runs
from helpers.models.run import HOOKS
from helpers.models.tokens import is_padded

Beta = float | Float[Tensor, " batch"]


class Intervention(nn.Module, ABC):
    """Parameters θ at intervention points, and the edit that they make.

    Attributes:
        points: where it acts.
        theta: one parameter a site, [layer pos] or [layer pos head], with a last axis for vectors;
            zero when made, so that a new intervention does nothing.
    """

    _at = slice(None)  # the positions that the model is run on at the moment

    @checked
    def __init__(
        self,
        points: Points,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if not dtype.is_floating_point:
            raise TypeError(f"dtype = {dtype} must be one of floating-point numbers.")
        self.points = points
        theta = {}
        for site in points.sites:
            zeros = torch.zeros(self.theta_shape(site), dtype=dtype, device=device)
            theta[site] = nn.Parameter(zeros)
        # ParameterDict sorts a plain dict by site; vec() and reset() rely on that order.
        self.theta = nn.ParameterDict(theta)

    @abstractmethod
    def theta_shape(self, site: str) -> tuple[int, ...]:
        """Shape of θ at a site."""

    def hook_name(self, site: str, layer: int) -> str:
        """The hook on which this intervention acts at a site of a layer."""
        return HOOKS[site].format(layer=layer)

    @abstractmethod
    def edit(
        self,
        model: TransformerBridge,
        h: Float[Tensor, "batch pos *head d"],
        site: str,
        layer: int,
        beta: Float[Tensor, ...],
    ) -> Float[Tensor, "batch pos *head d"]:
        """The activation h̃ that replaces h at the ``layer``-th of ``points.layers``."""

    def forward(self, *args, **kwargs) -> Tensor:
        """The edit, so that PyTorch's functional calls of modules find it."""
        return self.edit(*args, **kwargs)

    def vec(self) -> Float[Tensor, " n_parameters"]:
        """vec(θ) of Eq. 8: every parameter in one vector."""
        return torch.cat([theta.flatten() for theta in self.theta.values()])

    def n_parameters(self) -> int:
        return self.vec().numel()

    def first(self) -> int:
        """The first position that it acts on; no earlier one ever changes."""
        return 0 if self.points.n_pos is None else min(self.points.positions)

    @torch.no_grad()
    def reset(self, seed: int, std: float = 1e-5) -> None:
        """Draw θ from N(0, std²), the same on every device (appendix A.1 has N(0, 1e-5))."""
        generator = torch.Generator().manual_seed(whole("seed", seed, 0))
        std = real("std", std, 0)
        for theta in self.theta.values():
            theta.copy_(torch.randn(theta.shape, generator=generator, dtype=torch.float64) * std)

    @contextmanager
    def applied(
        self, model: TransformerBridge, beta: Beta = 1.0, *, at: slice = slice(None)
    ) -> Iterator[TransformerBridge]:
        """The model with this intervention, inside a ``with`` block.

        Hooks are removed at its end, also after an error.

        Args:
            model: the model that the points were made for.
            beta: β of Eq. 4 and 5: one number, or one for each prompt. 0 changes no bit.
            at: the positions that the model is run on, if not all (``helpers.models.prefix``).

        Raises:
            ValueError: another model than the points' own, or a β that is not finite; inside the
                block, a prompt of another length or a batch of another size than beta.
        """
        strengths = self.strengths(beta)
        if not isinstance(beta, Tensor) and beta == 0:
            self.points.check_model(model)
            yield model
            return

        def change(h: Tensor, site: str, layer: int) -> Tensor:
            n = len(strengths) if strengths.ndim else None
            if n is not None and n != len(h):
                raise ValueError(f"beta has {n} values for a batch of {len(h)} prompts.")
            rows = strengths if n is None else strengths.view(-1, *[1] * (h.ndim - 1))
            return self.edit(model, h, site, layer, rows)

        with self.hooked(model, change, at):
            yield model

    def strengths(self, betas: Beta | list[float]) -> Tensor:
        """Strengths in the precision of θ and on its device."""
        theta = next(iter(self.theta.values()))
        # Where they are given, which for numbers is the CPU: a GPU would have to be waited for.
        try:
            betas = torch.as_tensor(betas, dtype=theta.dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"beta must be a number or a list of them, not {betas!r}.") from error
        if not betas.isfinite().all():
            raise ValueError(f"beta = {betas.tolist()} must be finite.")
        return betas.to(theta.device)

    @contextmanager
    def hooked(
        self, model: TransformerBridge, change: Callable[[Tensor, str, int], Tensor], at: slice
    ) -> Iterator[None]:
        """Replace every activation h of the points by ``change(h, site, layer)``."""
        self.points.check_model(model)

        def hook(site: str, layer: int):
            def replace(h: Tensor, hook) -> Tensor:
                padded = padded_ends(model) is not None
                self.points.check_length(h.shape[1], self._at, padded=padded)
                if h.device != self.theta[site].device:
                    raise ValueError(
                        f"parameters are on {self.theta[site].device}, and activations on "
                        f"{h.device}: move them with intervention.to({str(h.device)!r})."
                    )
                # In the precision of θ where that is the higher one; a model of 16 bits gets 16.
                wide = h.to(torch.promote_types(h.dtype, self.theta[site].dtype))
                return change(wide, site, layer).to(h.dtype)

            return replace

        # A hook for each site and layer
        hooks = []
        for site in self.points.sites:
            for layer, number in enumerate(self.points.layers):
                hooks.append((self.hook_name(site, number), hook(site, layer)))
        before = self._at
        try:
            self._at = at
            with hooked(model, hooks):
                yield
        finally:
            self._at = before

    @checked
    def check_tokens(self, tokens: Int[Tensor, "batch pos"]) -> None:
        """Raise ValueError for prompts of mixed or another length if positions are tied to one."""
        self.points.check_length(tokens.shape[1], padded=is_padded(tokens))


class ActivScalar(Intervention):
    """One signed scalar α for each activation vector: h̃ = h·(1 + βα) (Eq. 5).

    At ``head_out`` the scalar multiplies z: a head's output is linear in z, so both scale it alike.
    """

    def theta_shape(self, site: str) -> tuple[int, ...]:
        return (len(self.points.layers), len(self.points.positions), *self.points.heads(site))

    def edit(self, model, h, site, layer, beta):
        alpha = self.points.everywhere(self.theta[site][layer])[self._at]  # [pos] or [pos head]
        return h * (1 + beta * alpha.unsqueeze(-1))


class SteerVec(Intervention):
    """One vector v for each activation vector: h̃ = h + βv (Eq. 4).

    At ``head_out`` the vectors are added to the sum of the heads' outputs, which is the same.
    """

    def theta_shape(self, site: str) -> tuple[int, ...]:
        heads = self.points.heads(site)
        n_layers, n_pos = len(self.points.layers), len(self.points.positions)
        return (n_layers, n_pos, *heads, self.points.width(site))

    def hook_name(self, site: str, layer: int) -> str:
        return HOOKS["attn_out" if site == "head_out" else site].format(layer=layer)

    def edit(self, model, h, site, layer, beta):
        v = self.points.everywhere(self.theta[site][layer])[self._at]  # [pos d] or [pos head d]
        return h + beta * (v.sum(dim=1) if site == "head_out" else v)


@checked
def steered_logits(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    intervention: Intervention,
    betas: Float[Tensor, " beta"] | list[float],
    *,
    batch_size: int = 64,
) -> Float[Tensor, "beta batch d_vocab"]:
    """Last-token logits of every prompt at every β, ``batch_size`` of them in one forward pass.

    Raises:
        TypeError, ValueError: no β, one that is not finite, or a batch size below 1.
    """
    size = whole("batch_size", batch_size)
    intervention.check_tokens(tokens)
    betas = intervention.strengths(betas)
    if betas.ndim != 1 or not len(betas):
        raise ValueError(f"betas must be a list of strengths, not {betas.tolist()}.")
    runs, columns = Runs.of(model, tokens, intervention.first()), []
    for rows in torch.arange(len(tokens), device=tokens.device).split(size):
        logits = []
        # Prompts at the same β share the run of the tokens that they begin with.
        for some in betas.split(max(1, size // len(rows))):

            def steered(n: int, at: slice, some: Tensor = some) -> AbstractContextManager:
                return intervention.applied(model, some.repeat_interleave(n), at=at)

            logits.append(runs.logits(model, steered, rows.expand(len(some), -1)))
        columns.append(torch.cat(logits))
    return torch.cat(columns, dim=1)

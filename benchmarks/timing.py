"""Time several ways of computing the same, in turns and in one process, after they have been shown to give the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """One way of computing something.

    Attributes:
        name: what the table calls it.
        run: the work that is timed.
        share: how many units of the case it does at once; its times are divided by them.
        tolerance: how far its numbers may be from those of the first variant, plus that share of their size. None: any
            distance is only recorded, for variants that compute less exactly on purpose.
        note: what a reader of the table must know.
    """

    name: str
    run: Callable[[], Any]
    share: int = 1
    tolerance: float | None = 1e-3
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One run: its result, and wall-clock seconds, this process's seconds of all threads, and most GPU memory in GB."""

    result: Any
    seconds: float
    cpu: float
    peak_gb: float | None


def timed(run: Callable[[], Any], device: torch.device) -> Run:
    """Run it once; a GPU is waited for at both ends."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start, cpu = time.perf_counter(), time.process_time()
    result = run()
    if cuda:
        torch.cuda.synchronize(device)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Run(
        result, seconds, cpu, torch.cuda.max_memory_allocated(device) / 1e9 if cuda else None
    )


def compare(
    variants: Sequence[Variant],
    numbers: Callable[[Any], Tensor],
    *,
    device: torch.device,
    repeats: int = 3,
    limit: float = 30.0,
) -> list[dict[str, Any]]:
    """A row of times for each variant.

    All run once, and what they computed is compared; that run does not count. Then they take turns, so that whatever else
    slows the machine down slows all of them.

    Args:
        variants: the first is the one that the others are held against.
        numbers: what is compared, of a run's result; not timed.
        device: where they run.
        repeats: timed runs of each.
        limit: a variant whose first run took longer, in seconds, is not run again, and that run is its time.

    Returns:
        For each variant ``seconds``, the least of its repeats, which is least disturbed by other work; their ``median``;
        ``cpu_seconds``, also the least; ``peak_gb`` of GPU memory; and ``difference``, the largest from the first
        variant's numbers.

    Raises:
        ValueError: a variant computes something else; nothing has been timed then.
    """
    first = [timed(variant.run, device) for variant in variants]
    found = [numbers(run.result).double().cpu() for run in first]
    differences = [(mine - found[0]).abs() for mine in found]
    for variant, difference in zip(variants, differences):
        if (
            variant.tolerance is not None
            and not (difference <= variant.tolerance * (1 + found[0].abs())).all()
        ):
            raise ValueError(
                f"{variant.name!r} does not compute what {variants[0].name!r} computes: their numbers differ by up to "
                f"{difference.max():.3g}, and {variant.tolerance:g} is allowed. Times of different results say nothing."
            )
    kept = [[run] if run.seconds > limit else [] for run in first]
    again = [number for number, runs in enumerate(kept) if not runs]
    for _ in range(repeats):
        for number in again:
            kept[number].append(timed(variants[number].run, device))
    return [
        {
            "variant": variant.name,
            "seconds": min(run.seconds for run in runs) / variant.share,
            "median": median(run.seconds for run in runs) / variant.share,
            "cpu_seconds": min(run.cpu for run in runs) / variant.share,
            "repeats": len(runs),
            "peak_gb": max((run.peak_gb for run in runs if run.peak_gb is not None), default=None),
            "difference": difference.max().item(),
            "note": variant.note,
        }
        for variant, runs, difference in zip(variants, kept, differences)
    ]

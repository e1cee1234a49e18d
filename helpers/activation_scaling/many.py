"""Fit many settings in one batch: what a single fit leaves idle of a GPU, fits of other objectives, rates and seeds fill.

Every setting has parameters, an objective and an Adam of its own, and no row of the batch sees another: the results are
those of single fits. How many settings a batch holds is a matter of memory alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.fitting import Fit, check_options, not_finite
from helpers.activation_scaling.interventions import Intervention, each_applied
from helpers.activation_scaling.objective import (
    Evaluation,
    Objective,
    effectiveness,
    faithfulness,
    minimality,
)
from helpers.models.prefix import Runs
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts, join

# Positions in a batch on a CPU: enough that reading the weights, once a batch, costs little beside
# the arithmetic. A step keeps about 1.5 MB a position for the embedded model.
CPU_POSITIONS = 512
SPARE = 0.8  # share of the free memory that the estimate fills: the allocator loses some between its blocks


@dataclass(frozen=True)
class Job:
    """One setting: what is fitted, on which objective, how fast, from which start; see :func:`fit`.

    ``prompts`` are those of this job; if not given, those of all jobs.
    """

    intervention: Intervention
    objective: Objective
    learning_rate: float
    seed: int = 0
    initial_std: float = 1e-5
    prompts: Prompts | None = None


Result = Fit | FloatingPointError


@dataclass(frozen=True)
class Many:
    """What came of many fits.

    Attributes:
        results: a fit for each job, in their order; for one that failed its error, and its θ is at the last finite value.
        at_once: how many settings shared a batch in the end.
        peak: most bytes of GPU memory in use at a time, weights included; None on other devices.
    """

    results: list[Result]
    at_once: int
    peak: int | None


def fit_many(
    model: TransformerBridge,
    jobs: Sequence[Job],
    prompts: Prompts | None = None,
    *,
    epochs: int = 25,
    at_once: int | None = None,
    on_result: Callable[[int, Result], None] | None = None,
) -> Many:
    """Fit each job's intervention in place, as ``helpers.activation_scaling.fitting.fit`` does with all prompts in every step.

    Args:
        model: frozen.
        jobs: settings; their interventions are of one class and act at the same points, each an object of its own.
        prompts: training prompts of the jobs that have none of their own. All jobs have equally many prompts, of equal
            lengths.
        epochs: steps, of all prompts each.
        at_once: settings in a batch; None takes what memory there is for (on a CPU four). Halved when memory runs out.
        on_result: called with the number of a job and what came of it, as soon as its batch is done.

    Raises:
        ValueError: no job; interventions that differ in class or points, or one that is given twice; options that
            ``fit`` refuses.
        RuntimeError: memory runs out with one setting alone.
    """
    jobs = [job if job.prompts else replace(job, prompts=prompts) for job in jobs]
    _check(jobs, epochs)
    prompts = jobs[0].prompts
    cuda = prompts.tokens.is_cuda
    if cuda:
        torch.cuda.reset_peak_memory_stats(prompts.tokens.device)
    size = min(at_once or room(model, jobs[0]), len(jobs))
    results: list[Result] = []
    while len(results) < len(jobs):
        group = jobs[len(results) : len(results) + size]
        try:
            done = _fit_group(model, group, epochs)
        except RuntimeError as error:
            if not out_of_memory(error) or len(group) == 1:
                raise
            size = len(group) // 2
        else:
            for number, result in enumerate(done, start=len(results)):
                if on_result is not None:
                    on_result(number, result)
            results += done
            continue
        if cuda:
            torch.cuda.empty_cache()  # only here: inside the handler the error still holds on to the failed step
    return Many(
        results, size, torch.cuda.max_memory_allocated(prompts.tokens.device) if cuda else None
    )


@torch.no_grad()
def evaluate_many(
    model: TransformerBridge,
    interventions: Sequence[Intervention],
    prompts: Prompts,
    *,
    at_once: int | None = None,
) -> list[Evaluation]:
    """Evaluate each intervention as ``objective.evaluate`` does, many in one batch.

    Args:
        model: frozen.
        interventions: as those of :func:`fit_many`'s jobs, on the model's device.
        prompts: all of them are in every batch.
        at_once: interventions in a batch; those that were fitted in one batch fit in memory
            without their gradients, too.
    """
    base = last_logits(model, prompts.tokens)
    runs = Runs.of(model, prompts.tokens, interventions[0].first())
    size = at_once or _cpu_batch(prompts)
    all_rows = torch.arange(len(prompts), device=prompts.tokens.device)
    measured = []
    for start in range(0, len(interventions), size):
        group = interventions[start : start + size]
        logits = _logits(model, group, runs, all_rows.expand(len(group), -1))
        for intervention, (plus, minus) in zip(group, logits):
            measured.append(
                Evaluation.of(intervention.vec(), plus, minus, base, prompts.correct, prompts.wrong)
            )
    return measured


def room(model: TransformerBridge, job: Job) -> int:
    """How many settings like this one memory has room for: what a step of one takes, against what is free."""
    device = job.prompts.tokens.device
    if device.type != "cuda":
        return _cpu_batch(job.prompts)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    _fit_group(model, [deepcopy(job)], epochs=1)
    one = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    return max(1, int(SPARE * torch.cuda.mem_get_info(device)[0] / one))


def _cpu_batch(prompts: Prompts) -> int:
    return max(1, CPU_POSITIONS // (2 * prompts.tokens.numel()))


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says so; a CUDA device has a class for it, the CPU only words."""
    said = str(error).lower()
    return (
        isinstance(error, torch.cuda.OutOfMemoryError)
        or "out of memory" in said
        or "can't allocate memory" in said
    )


def _check(jobs: Sequence[Job], epochs: int) -> None:
    if not jobs:
        raise ValueError("there is no job to fit.")
    interventions = [job.intervention for job in jobs]
    if len({(type(intervention), intervention.points) for intervention in interventions}) > 1:
        raise ValueError(
            "interventions that are fitted together must be of one class and have the same points."
        )
    if len(set(map(id, interventions))) < len(jobs):
        raise ValueError("an intervention is given twice: every job needs one of its own.")
    if any(job.prompts is None for job in jobs):
        raise ValueError("a job has no prompts: give them to the job or to all jobs.")
    if len({job.prompts.tokens.shape for job in jobs}) > 1:
        raise ValueError(
            "jobs that are fitted together must have equally many, equally long prompts."
        )
    for job in jobs:
        check_options(learning_rate=job.learning_rate, epochs=epochs)
        job.intervention.check_tokens(job.prompts.tokens)


def _fit_group(model: TransformerBridge, jobs: Sequence[Job], epochs: int) -> list[Result]:
    start = time.perf_counter()
    prompts, rows = _together([job.prompts for job in jobs])
    for job in jobs:
        job.intervention.to(prompts.tokens.device)
        job.intervention.reset(job.seed, job.initial_std)
    with torch.no_grad():
        unsteered = last_logits(model, prompts.tokens)
    runs = Runs.of(model, prompts.tokens, jobs[0].intervention.first())
    base, answers = unsteered[rows], (prompts.correct[rows], prompts.wrong[rows])
    rows = rows.expand(len(jobs), -1)
    optimizer = _adam(jobs)
    histories: list[list[dict[str, float]]] = [[] for _ in jobs]
    failed: dict[int, FloatingPointError] = {}
    for epoch in range(epochs):
        plus, minus = _logits(model, [job.intervention for job in jobs], runs, rows).unbind(1)
        terms = _terms(jobs, plus, minus, base, answers)
        optimizer.zero_grad()
        (-terms["psi"].sum()).backward()
        values = torch.stack(
            [*terms.values(), _finite(jobs, terms["psi"])], -1
        ).tolist()  # read once: a GPU waits for it
        for index, (job, (*numbers, finite)) in enumerate(zip(jobs, values)):
            said = dict(zip(terms, numbers))
            if not finite and index not in failed:
                failed[index] = not_finite(said)
            if index not in failed:
                histories[index].append({"epoch": epoch, **said})
                continue
            for theta in job.intervention.parameters():
                theta.grad = None  # which Adam takes no step of
        optimizer.step()
    seconds = (time.perf_counter() - start) / len(jobs)
    return [
        failed.get(index) or Fit(job.intervention, job.objective, history, seconds)
        for index, (job, history) in enumerate(zip(jobs, histories))
    ]


def _together(sets: Sequence[Prompts]) -> tuple[Prompts, Int[Tensor, "#job prompt"]]:
    """The prompts of several jobs as one set, and the rows of each job's own.

    If all jobs have the same prompts, one row of rows stands for all of them.
    """
    n, device = len(sets[0]), sets[0].tokens.device
    if all(prompts is sets[0] for prompts in sets):
        return sets[0], torch.arange(n, device=device)[None]
    return join(sets), torch.arange(n * len(sets), device=device).view(len(sets), n)


def _adam(jobs: Sequence[Job]) -> torch.optim.Adam:
    """One Adam for all: it moves every number by itself, and takes those of one learning rate in one go."""
    rates = dict.fromkeys(job.learning_rate for job in jobs)
    return torch.optim.Adam(
        {
            "params": [
                theta
                for job in jobs
                if job.learning_rate == rate
                for theta in job.intervention.parameters()
            ],
            "lr": rate,
        }
        for rate in rates
    )


def _terms(
    jobs: Sequence[Job], plus: Tensor, minus: Tensor, base: Tensor, answers: tuple[Tensor, Tensor]
) -> dict[str, Float[Tensor, " job"]]:
    """``Objective.terms`` of every job, computed for all at once: many small kernels idle a GPU."""
    theta = torch.stack([job.intervention.vec() for job in jobs])
    margin, lambda_f, lambda_m = plus.new_tensor(
        [[job.objective.margin, job.objective.lambda_f, job.objective.lambda_m] for job in jobs]
    ).T
    terms = {
        "E_m": effectiveness(plus, minus, *answers, margin[:, None]),
        "F": faithfulness(plus, minus, base),
        "M_1": minimality(theta, 1),
    }
    return terms | {"psi": terms["E_m"] + lambda_f * terms["F"] + lambda_m * terms["M_1"]}


def _finite(jobs: Sequence[Job], psi: Float[Tensor, " job"]) -> Float[Tensor, " job"]:
    """1 for each job whose objective and gradient are numbers, else 0."""
    gradients = torch.stack(
        [
            torch.cat([theta.grad.flatten() for theta in job.intervention.parameters()])
            for job in jobs
        ]
    )
    return (psi.isfinite() & gradients.isfinite().all(-1)).to(psi)


def _logits(
    model: TransformerBridge,
    interventions: Sequence[Intervention],
    runs: Runs,
    rows: Int[Tensor, "job prompt"],
) -> Float[Tensor, "job sign prompt d_vocab"]:
    """Last-position logits of every intervention's prompts, at β = 1 and −1, in one batch."""
    n_jobs = len(interventions)
    signs = interventions[0].vec().new_tensor([1.0, -1.0])

    def steered(n: int, at: slice) -> AbstractContextManager:
        beta = signs.repeat_interleave(n).repeat(n_jobs)
        return each_applied(model, interventions, beta, at=at)

    both = rows.repeat_interleave(2, dim=0)
    return runs.logits(model, steered, both).unflatten(0, (n_jobs, 2))

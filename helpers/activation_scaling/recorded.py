"""Fits that an earlier run of a chapter recorded: read, and a sample of them made again.

Fits take most of the time of some chapters. The parameters of those on the embedded model that have
few are a file beside the recorded tables. A fit is read only where the model's weights, the prompts
and every setting are the same, to the last bit: a learning rate that a chapter computes has to be
rounded, or another processor's is another. When a process first reads a record, one fit is made
again, and where it does not come out as recorded, none is used.
``BOOK_FITS=anew`` makes all of them, ``BOOK_FITS=record`` records them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.ascent import Fit, FitJob, Result
from helpers.activation_scaling.fitting import fit_many
from helpers.models.checks import checked, whole
from helpers.models.load import fingerprint
from helpers.results.records import provenance
from helpers.settings import SETTINGS

# A fit that is made again has to have at least this cosine with the recorded one, and a last Ψ no
# further away than this (nats): another processor rounds otherwise, and Adam carries that on.
COSINE, PSI = 0.99, 0.05
# Interventions with more parameters than this are not recorded: the file would be large.
MOST_PARAMETERS = 50_000
HISTORY, TERMS = "history", ("epoch", "E_m", "F", "M_1", "psi")
# Records of which a fit came out again in this process, with the time of their last change.
_came_out: set[tuple[Path, int]] = set()


@dataclass(frozen=True)
class Recorded:
    """The content of a record.

    Attributes:
        tensors: by key of a job: θ by site, and as ``history`` the terms of Ψ before each step,
            [step term].
        jobs: by key, what was fitted: the facts that the key is a digest of.
        origin: provenance.
    """

    tensors: dict[str, dict[str, Tensor]]
    jobs: dict[str, dict[str, Any]]
    origin: dict[str, Any]


def facts_of(job: FitJob, weights: str, **how: Any) -> dict[str, Any]:
    """All that the result of a fit depends on, as JSON values."""
    prompts = job.prompts
    return {
        "weights": weights,
        "intervention": type(job.intervention).__name__,
        "points": asdict(job.intervention.points),
        "objective": asdict(job.objective),
        "learning_rate": job.learning_rate,
        "seed": job.seed,
        "initial_std": job.initial_std,
        "texts": prompts.texts,
        "tokens": prompts.tokens.tolist(),
        "correct": prompts.correct.tolist(),
        "wrong": prompts.wrong.tolist(),
        **how,
    }


def key_of(facts: dict[str, Any]) -> str:
    """A digest of :func:`facts_of`."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@checked
def fit_or_read(
    model: TransformerBridge,
    jobs: Sequence[FitJob],
    path: str | Path,
    *,
    n_again: int = 1,
    epochs: int = 25,
    batch_size: int | None = None,
) -> list[Result]:
    """The results of ``fitting.fit_many``, those that were recorded read from a file.

    Args:
        model, jobs, epochs, batch_size: as for ``fit_many``.
        path: the record; where there is none, all jobs are fitted. ``BOOK_FITS=record`` adds the
            jobs to it.
        n_again: how many of the recorded fits are made again, spread over the jobs, when the
            process first reads this record. These few take longer than reading all the others.

    Raises:
        as ``fit_many``, and ValueError: the file is no record of fits.
    """
    path, how = Path(path), {"epochs": epochs, "batch_size": batch_size}
    whole("n_again", n_again)
    if SETTINGS.fits == "record":
        results = fit_many(model, jobs, **how).results
        write(model, path, jobs, results, **how)
        return results
    record = read(path) if SETTINGS.fits == "recorded" and path.exists() else None
    weights = fingerprint(model)
    keys = [key_of(facts_of(job, weights, **how)) for job in jobs]
    known = [number for number, key in enumerate(keys) if record and key in record.tensors]
    if not known:
        if record:
            print(f"None of these {len(jobs)} fits is in {path.name}: all are made now.")
        return fit_many(model, jobs, **how).results
    # Make again a sample of what is known, with all that is not.
    this = path.absolute(), path.stat().st_mtime_ns
    again = [] if this in _came_out else known[:: max(1, len(known) // n_again)][:n_again]
    anew = sorted(again + [number for number in range(len(jobs)) if number not in set(known)])
    made = fit_many(model, [jobs[number] for number in anew], **how).results if anew else []
    results = dict(zip(anew, made))
    apart = [_apart(results[number], record, keys[number]) for number in again]
    rest = [number for number in known if number not in results]
    if any(cosine < COSINE or psi > PSI for cosine, psi in apart):
        print(f"{path.name} does not come out again here, so all {len(jobs)} fits are made anew.")
        results |= zip(rest, fit_many(model, [jobs[number] for number in rest], **how).results)
    else:
        results |= {number: _read_fit(jobs[number], record, keys[number]) for number in rest}
        _came_out.add(this)
        check = "one came out again above"
        if apart:
            least = min(cosine for cosine, _ in apart)
            check = f"made again as a check: {len(again)}, with a cosine of at least {least:.4f}"
        print(
            f"{len(rest)} of {len(jobs)} fits were read from {path.name}, recorded "
            f"{record.origin['date']}; {check}."
        )
    return [results[number] for number in range(len(jobs))]


def _apart(result: Result, record: Recorded, key: str) -> tuple[float, float]:
    """Cosine of a fit's parameters with the recorded ones, and the distance of their last Ψ."""
    if not isinstance(result, Fit):
        return -1.0, float("inf")
    theta = result.intervention.theta
    ours = torch.cat([theta[site].detach().cpu().float().flatten() for site in theta])
    theirs = torch.cat([record.tensors[key][site].flatten() for site in theta])
    cosine = torch.cosine_similarity(ours.double(), theirs.double(), dim=0).item()
    last = record.tensors[key][HISTORY][-1, TERMS.index("psi")].item()
    return cosine, abs(result.history[-1]["psi"] - last)


@torch.no_grad()
def _read_fit(job: FitJob, record: Recorded, key: str) -> Fit:
    """A recorded fit, as if the job had been run: its intervention has the learned θ."""
    job.intervention.to(job.prompts.tokens.device)
    for site, theta in job.intervention.theta.items():
        theta.copy_(record.tensors[key][site])
    history = []
    for step in record.tensors[key][HISTORY].tolist():
        history.append(dict(zip(TERMS, step)) | {"epoch": int(step[0])})
    return Fit(job.intervention, job.objective, history)


def write(
    model: TransformerBridge,
    path: Path,
    jobs: Sequence[FitJob],
    results: Sequence[Result],
    **how: Any,
) -> None:
    """Add fits to a record, or begin one. The new file takes the old one's place at once.

    Raises:
        FloatingPointError: a fit failed; nothing is written.
    """
    before = read(path) if path.exists() else Recorded({}, {}, {})
    tensors, described, weights = dict(before.tensors), dict(before.jobs), fingerprint(model)
    for job, result in zip(jobs, results):
        if not isinstance(result, Fit):
            raise result
        if job.intervention.n_parameters() > MOST_PARAMETERS:
            continue
        facts = facts_of(job, weights, **how)
        steps = torch.tensor([list(step.values()) for step in result.history], dtype=torch.float64)
        tensors[key_of(facts)] = {HISTORY: steps}
        for site, theta in result.intervention.theta.items():
            tensors[key_of(facts)][site] = theta.detach().cpu().float().contiguous()
        described[key_of(facts)] = facts
    # One flat file, and beside it for a moment, so that a kill leaves the old one whole.
    flat = {}
    for key, by_name in tensors.items():
        flat |= {f"{key}/{name}": value for name, value in by_name.items()}
    metadata = {"jobs": json.dumps(described), "origin": json.dumps(provenance(model))}
    part = path.with_name(path.name + ".part")
    part.write_bytes(save(flat, metadata))  # save_file ignores the umask
    part.replace(path)


def read(path: Path) -> Recorded:
    """A record of fits.

    Raises:
        ValueError: the file is none.
    """
    tensors = {}
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            for flat in file.keys():
                key, name = flat.split("/")
                tensors.setdefault(key, {})[name] = file.get_tensor(flat)
        return Recorded(tensors, json.loads(metadata["jobs"]), json.loads(metadata["origin"]))
    except Exception as error:  # safetensors has a class of its own for every fault
        raise ValueError(
            f"{path} is no record of fits ({error}); restore it, or delete it to fit anew."
        ) from error

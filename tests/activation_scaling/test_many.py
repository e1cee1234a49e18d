"""Many fits in one batch: each as if it were alone, however little memory there is."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from helpers.activation_scaling import ascent
from helpers.activation_scaling.dynamic import DynScalar, DynScalarHidden
from helpers.activation_scaling.fitting import FitJob, fit, fit_many
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.objective import Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.activation_scaling.together import evaluate_many
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts

pytestmark = pytest.mark.unit
IN_32_BITS = ("EleutherAI/gpt-neo-1.3B", "HuggingFaceTB/SmolLM2-135M-Instruct")
SETTINGS = [  # objective, learning rate, seed
    (Objective(margin=1.0), 1e-2, 0),
    (Objective(margin=0.1, lambda_f=2.0), 3e-2, 1),
    (Objective(margin=5.0, lambda_f=0.5, lambda_m=0.3), 1e-3, 1),
]


@pytest.fixture(scope="module")
def prompts(tiny) -> Prompts:
    return Prompts.of(
        tiny, ["w1 w2 w3", "w1 w5 w6", "w1 w8 w9"], ["w10", "w11", "w12"], ["w13", "w14", "w15"]
    )


def jobs_of(model, prompts, kind=SteerVec, dtype=torch.float64, **axes) -> list[FitJob]:
    n_pos = None if issubclass(kind, DynScalar | DynScalarHidden) else prompts.n_pos
    points = Points.of(model, n_pos, **axes)
    jobs = []
    for objective, rate, seed in SETTINGS:
        jobs.append(FitJob(kind(points, dtype=dtype), objective, prompts, rate, seed, 0.1))
    return jobs


def alone(model, job, **how):
    how |= {name: getattr(job, name) for name in ("learning_rate", "seed", "initial_std")}
    return fit(model, deepcopy(job.intervention), job.prompts, job.objective, **how)


def check_equal(model, results, singles):
    for result, single in zip(results, singles, strict=True):
        difference = (result.intervention.vec() - single.intervention.vec()).abs()
        # Parts of two of the models compute in 32 bits, which round otherwise in another batch.
        assert difference.max() < (1e-3 if model.cfg.model_name in IN_32_BITS else 1e-10)
        assert [*result.history[-1]] == [*single.history[-1]]
        for mine, its in zip(result.history, single.history, strict=True):
            assert mine == pytest.approx(its, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"sites": ["head_out"], "positions": [-1]},
        {"sites": ["v", "resid_post"], "positions": [1, 2]},
    ],
)
@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_jobs_in_one_batch_equal_single_fits(tiny, prompts, kind, axes):
    jobs = jobs_of(tiny, prompts, kind, **axes)
    singles = [alone(tiny, job, epochs=4) for job in jobs]
    done = fit_many(tiny, jobs, epochs=4)
    assert done.at_once == 3 and done.peak is None
    check_equal(tiny, done.results, singles)
    first, second, _ = (result.intervention.vec() for result in done.results)
    assert not torch.allclose(first, second, atol=1e-3), "other objectives give other parameters"


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("kind", [SteerVec, DynScalar, DynScalarHidden])
def test_so_do_steps_of_a_few_prompts_and_prompts_of_their_own(tiny, prompts, kind, batch_size):
    own = [prompts.at(rows) for rows in ([0, 1, 2], [2, 0, 0], [1, 1, 2])]
    jobs = jobs_of(tiny, prompts, kind)
    jobs = [replace(job, prompts=mine) for job, mine in zip(jobs, own)]
    singles = [alone(tiny, job, epochs=3, batch_size=batch_size) for job in jobs]
    check_equal(tiny, fit_many(tiny, jobs, epochs=3, batch_size=batch_size).results, singles)
    shared = fit_many(tiny, jobs_of(tiny, own[0], kind), epochs=3, batch_size=batch_size).results
    check_equal(tiny, shared[:1], singles[:1])
    assert (shared[1].intervention.vec() - singles[1].intervention.vec()).abs().max() > 1e-3


def test_one_objective_for_all_would_be_seen(tiny, prompts):
    """The control of the identity: with the first job's objective in place of its own."""
    jobs = jobs_of(tiny, prompts)
    singles = [alone(tiny, job, epochs=4) for job in jobs]
    mixed = [replace(job, objective=SETTINGS[0][0]) for job in jobs]
    for result, single in list(zip(fit_many(tiny, mixed, epochs=4).results, singles))[1:]:
        assert (result.intervention.vec() - single.intervention.vec()).abs().max() > 1e-3


class Poisoned(SteerVec):
    """Vectors whose edit is NaN once one of them is large."""

    def edit(self, model, h, site, layer, beta):
        poison = torch.where(self.theta[site].abs().amax() > 1, float("nan"), 1.0)
        return super().edit(model, h, site, layer, beta) * poison


def test_a_setting_that_fails_is_said_and_the_others_go_on(tiny, prompts):
    kind = Poisoned(Points.of(tiny, prompts.n_pos), dtype=torch.float64)
    rates = (1e-2, 0.4, 2e-2)
    jobs = []
    for seed, rate in enumerate(rates):
        jobs.append(FitJob(deepcopy(kind), Objective(margin=1.0), prompts, rate, seed))
    singles = [alone(tiny, job, epochs=6) for job in (jobs[0], jobs[2])]
    first, failed, last = fit_many(tiny, jobs, epochs=6).results
    assert isinstance(failed, FloatingPointError) and "Lower the learning rate" in str(failed)
    check_equal(tiny, [first, last], singles)
    assert (
        jobs[1].intervention.vec().isfinite().all() and jobs[1].intervention.vec().abs().max() > 1
    )
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        alone(tiny, jobs[1], epochs=6)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("can't allocate memory: 9 bytes"),
    ],
)
def test_a_batch_that_is_too_large_is_halved(tiny, prompts, monkeypatch, error):
    """A stand-in for the memory: no step of more than one job fits."""
    sizes, real = [], ascent.logits_together

    def small_memory(model, interventions, runs, rows):
        sizes.append(len(interventions))
        if len(interventions) > 1:
            raise error
        return real(model, interventions, runs, rows)

    monkeypatch.setattr(ascent, "logits_together", small_memory)
    jobs = jobs_of(tiny, prompts)
    singles = [alone(tiny, job, epochs=2) for job in jobs]
    sizes.clear()
    done = fit_many(tiny, jobs, epochs=2, at_once=3)
    check_equal(tiny, done.results, singles)
    assert done.at_once == 1 and sizes == [3] + 3 * [1, 1]


def test_other_errors_and_a_single_setting_too_large_are_raised(tiny, prompts, monkeypatch):
    for message in ("CUDA out of memory.", "shapes do not match"):

        def broken(model, interventions, runs, rows, message=message):
            raise RuntimeError(message)

        monkeypatch.setattr(ascent, "logits_together", broken)
        with pytest.raises(RuntimeError, match=message):
            fit_many(tiny, jobs_of(tiny, prompts), epochs=2)


def test_nothing_is_left_on_the_model(tiny, prompts):
    base = last_logits(tiny, prompts.tokens)
    fit_many(tiny, jobs_of(tiny, prompts), epochs=1)
    assert torch.equal(last_logits(tiny, prompts.tokens), base)
    assert sum(len(point.fwd_hooks) for point in tiny.hook_dict.values()) == 0


def test_jobs_that_cannot_share_a_batch_are_refused(tiny, prompts):
    jobs = jobs_of(tiny, prompts)
    other = jobs_of(tiny, prompts, layers=[0])
    for bad, message in (
        ([], "no jobs"),
        ([jobs[0], other[0]], "same points"),
        ([jobs[0], jobs[0]], "share an intervention"),
        ([replace(jobs[0], learning_rate=-1.0)], "learning_rate = -1.0"),
        ([jobs[0], replace(jobs[1], prompts=prompts.at([0]))], "equally many"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_many(tiny, bad)


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_evaluations_in_a_batch_equal_single_ones(tiny, prompts, kind):
    some = [job.intervention for job in jobs_of(tiny, prompts, kind)]
    for seed, intervention in enumerate(some):
        intervention.reset(seed, 0.1)
    for mine, intervention in zip(evaluate_many(tiny, some, prompts, at_once=2), some, strict=True):
        its = evaluate(tiny, intervention, prompts)
        assert (mine.M0, mine.swapped) == (its.M0, its.swapped)
        assert (mine.E0, mine.F) == pytest.approx((its.E0, its.F), rel=1e-4, abs=1e-5)
    assert evaluate_many(tiny, [], prompts) == []

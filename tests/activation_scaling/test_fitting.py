"""Fits against Eq. 9 written out; many in a batch against single ones; what is refused."""

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
from tests.conftest import rounds

pytestmark = pytest.mark.unit
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


def made(model, prompts, kind=SteerVec, **axes):
    n_pos = None if issubclass(kind, DynScalar | DynScalarHidden) else prompts.n_pos
    return kind(Points.of(model, n_pos, **axes), dtype=torch.float64)


def jobs_of(model, prompts, kind=SteerVec, **axes) -> list[FitJob]:
    jobs = []
    for objective, rate, seed in SETTINGS:
        intervention = made(model, prompts, kind, **axes)
        jobs.append(FitJob(intervention, objective, prompts, rate, seed, 0.1))
    return jobs


def alone(model, job, **how):
    how |= {name: getattr(job, name) for name in ("learning_rate", "seed", "initial_std")}
    return fit(model, deepcopy(job.intervention), job.prompts, job.objective, **how)


def check_equal(model, results, singles):
    for result, single in zip(results, singles, strict=True):
        difference = (result.intervention.vec() - single.intervention.vec()).abs()
        # Parts of two of the models compute in 32 bits, which round otherwise in another batch.
        assert difference.max() < (1e-3 if rounds(model) else 1e-10)
        assert [*result.history[-1]] == [*single.history[-1]]
        for mine, its in zip(result.history, single.history, strict=True):
            assert mine == pytest.approx(its, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
@pytest.mark.slow
def test_a_fit_improves_effectiveness_and_vectors_swap_every_answer(tiny, prompts, kind):
    before = evaluate(tiny, made(tiny, prompts, kind), prompts)
    how = {"learning_rate": 0.05, "epochs": 60}
    result = fit(tiny, made(tiny, prompts, kind), prompts, Objective(margin=0.1), **how)
    after = evaluate(tiny, result.intervention, prompts)
    assert before.E0 < after.E0 and len(result.history) == 60
    assert result.history[-1]["psi"] > result.history[0]["psi"]
    if kind is SteerVec:
        assert after.E0 == 0 and after.swapped == 1


def test_the_first_step_is_adam_on_the_gradient_of_equation_9(tiny, prompts):
    """One step from the same start, with the loss written out, a prompt and a β at a time."""
    objective, ours = Objective(margin=1.0, lambda_f=0.5, lambda_m=0.1), made(tiny, prompts)
    # Also where gradients were switched off for everything.
    with torch.no_grad():
        fit(tiny, ours, prompts, objective, learning_rate=0.01, epochs=1, seed=4)
    plain = made(tiny, prompts)
    plain.reset(seed=4)
    loss = 0.1 * plain.vec().abs().sum()
    for n in range(len(prompts)):
        tokens, right, wrong = prompts.tokens[n : n + 1], prompts.correct[n], prompts.wrong[n]
        base = tiny(tokens)[0, -1].log_softmax(0)
        for sign in (1.0, -1.0):
            with plain.applied(tiny, sign):
                logits = tiny(tokens)[0, -1]
            log_p = logits.log_softmax(0)
            loss = loss + torch.relu(1.0 - sign * (logits[right] - logits[wrong])) / len(prompts)
            loss = loss + 0.5 * (log_p.exp() * (log_p - base)).sum() / len(prompts)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    loss.backward()
    optimizer.step()
    # 32-bit parts of GPT-Neo and Llama round the size of a few signs.
    assert torch.allclose(ours.vec(), plain.vec(), atol=1e-4)
    assert ours.vec().abs().median() > 5e-3, "Adam's first step is about the learning rate"


def test_the_same_seed_gives_the_same_fit_and_another_seed_another(tiny, prompts):
    how, runs = {"learning_rate": 0.01, "epochs": 3, "batch_size": 2}, []
    for seed in (0, 0, 1):
        run = fit(tiny, made(tiny, prompts), prompts, Objective(margin=1), seed=seed, **how)
        runs.append(run.intervention.vec())
        assert len(run.history) == 3 * 2, "two batches an epoch"
    first, again, other = runs
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.slow
def test_a_penalty_on_size_makes_scalars_smaller(tiny, prompts):
    sizes, how = [], {"learning_rate": 0.01, "epochs": 20}
    for weight in (0.0, 10.0):
        scalars = made(tiny, prompts, ActivScalar)
        fit(tiny, scalars, prompts, Objective(margin=1, lambda_m=weight), **how)
        sizes.append(scalars.vec().abs().sum())
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"sites": ["head_out"], "positions": [-1]},
        {"sites": ["v", "resid_post"], "positions": [1, 2]},
    ],
)
@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
@pytest.mark.slow
def test_jobs_in_one_batch_equal_single_fits(tiny, prompts, kind, axes):
    jobs = jobs_of(tiny, prompts, kind, **axes)
    singles = [alone(tiny, job, epochs=4) for job in jobs]
    done = fit_many(tiny, jobs, epochs=4)
    assert done.at_once == 3 and done.peak is None
    check_equal(tiny, done.results, singles)
    first, second, _ = (result.intervention.vec() for result in done.results)
    assert not torch.allclose(first, second, atol=1e-3), "other objectives give other parameters"


def test_so_do_jobs_of_several_kinds_and_points(tiny, prompts):
    kinds = [(SteerVec, {}), (ActivScalar, {"sites": ["resid_post", "attn_out"]})]
    kinds += [(ActivScalar, {"sites": ["head_out"], "positions": [2]})]
    jobs = []
    for job, (kind, axes) in zip(jobs_of(tiny, prompts), kinds):
        jobs.append(replace(job, intervention=made(tiny, prompts, kind, **axes)))
    singles = [alone(tiny, job, epochs=4) for job in jobs]
    done = fit_many(tiny, jobs, epochs=4)
    assert done.at_once == 3
    check_equal(tiny, done.results, singles)


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("kind", [SteerVec, DynScalar, DynScalarHidden])
@pytest.mark.slow
def test_so_do_steps_of_a_few_prompts_and_prompts_of_their_own(tiny, prompts, kind, batch_size):
    own = [prompts.at(rows) for rows in ([0, 1, 2], [2, 0, 0], [1, 1, 2])]
    shared, found = jobs_of(tiny, own[0], kind), []
    theirs = [replace(job, prompts=mine) for job, mine in zip(jobs_of(tiny, own[0], kind), own)]
    for jobs in (shared, theirs):
        singles = [alone(tiny, job, epochs=3, batch_size=batch_size) for job in jobs]
        found.append(fit_many(tiny, jobs, epochs=3, batch_size=batch_size).results)
        check_equal(tiny, found[-1], singles)
    shared, theirs = (results[1].intervention.vec() for results in found)
    assert (shared - theirs).abs().max() > 1e-3


def test_the_seed_of_a_fit_orders_its_prompts(tiny, prompts):
    how = {"learning_rate": 1e-2, "epochs": 1, "batch_size": 1, "initial_std": 0.0}
    first = set()
    for seed in range(6):  # all start from zero, and differ by the prompt of the first step
        run = fit(tiny, made(tiny, prompts), prompts, Objective(), seed=seed, **how)
        first.add(round(run.history[0]["E_m"], 6))
    assert len(first) > 1


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


def test_a_fit_that_is_not_finite_is_told_keeps_its_parameters_and_stops_no_other(tiny, prompts):
    jobs = []
    for seed, rate in enumerate((1e-2, 0.4, 2e-2)):
        poisoned = made(tiny, prompts, Poisoned)
        jobs.append(FitJob(poisoned, Objective(margin=1.0), prompts, rate, seed))
    singles = [alone(tiny, job, epochs=6) for job in (jobs[0], jobs[2])]
    first, failed, last = fit_many(tiny, jobs, epochs=6).results
    assert isinstance(failed, FloatingPointError) and "Lower the learning rate" in str(failed)
    check_equal(tiny, [first, last], singles)
    kept = jobs[1].intervention.vec()
    assert kept.isfinite().all() and kept.abs().max() > 1, "steps before the first NaN are taken"
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        alone(tiny, jobs[1], epochs=6)


@pytest.mark.parametrize("raised", [torch.cuda.OutOfMemoryError, RuntimeError])
def test_a_batch_that_is_too_large_is_halved(tiny, prompts, monkeypatch, raised):
    """A stand-in for the memory: no step of more than one job fits."""
    sizes, real = [], ascent.logits_together

    def small_memory(model, interventions, runs, rows):
        sizes.append(len(interventions))
        if len(interventions) > 1:
            raise raised("DefaultCPUAllocator: can't allocate memory: 9 bytes")
        return real(model, interventions, runs, rows)

    monkeypatch.setattr(ascent, "logits_together", small_memory)
    jobs = jobs_of(tiny, prompts)
    singles = [alone(tiny, job, epochs=2) for job in jobs]
    sizes.clear()
    done = fit_many(tiny, jobs, epochs=2, at_once=3)
    check_equal(tiny, done.results, singles)
    assert done.at_once == 1 and sizes == [3] + 3 * [1, 1]


@pytest.mark.parametrize("message", ["CUDA out of memory.", "shapes do not match"])
def test_other_errors_and_a_single_job_too_large_are_raised(tiny, prompts, monkeypatch, message):
    def broken(model, interventions, runs, rows):
        raise RuntimeError(message)

    monkeypatch.setattr(ascent, "logits_together", broken)
    with pytest.raises(RuntimeError, match=message):
        fit_many(tiny, jobs_of(tiny, prompts), epochs=2)


def test_batches_are_of_about_equal_size(tiny, prompts):
    jobs = jobs_of(tiny, prompts) + jobs_of(tiny, prompts)[:1]
    assert fit_many(tiny, jobs, epochs=1, at_once=3).at_once == 2, "two and two, not three and one"


def test_no_hook_and_no_gradient_is_left_on_the_model(tiny, prompts):
    base = last_logits(tiny, prompts.tokens)
    fit_many(tiny, jobs_of(tiny, prompts), epochs=1)
    assert torch.equal(last_logits(tiny, prompts.tokens), base)
    assert sum(len(point.fwd_hooks) for point in tiny.hook_dict.values()) == 0
    for weight in tiny.original_model.parameters():
        assert weight.grad is None and not weight.requires_grad


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_evaluations_in_a_batch_equal_single_ones(tiny, prompts, kind):
    sets, cases = (prompts, prompts.at([2, 0, 0])), []
    for seed, job in enumerate(jobs_of(tiny, prompts, kind)):
        job.intervention.reset(seed, 0.1)
        cases.append((job.intervention, sets[seed % 2]))
    several = evaluate_many(tiny, cases, batch_size=12)
    for ours, (intervention, own) in zip(several, cases, strict=True):
        its = evaluate(tiny, intervention, own)
        assert (ours.M0, ours.swapped) == (its.M0, its.swapped)
        assert (ours.E0, ours.F) == pytest.approx((its.E0, its.F), rel=1e-4, abs=1e-5)
    assert several[1].E0 != pytest.approx(evaluate(tiny, cases[1][0], prompts).E0, abs=1e-4)
    assert evaluate_many(tiny, []) == []


def test_cases_that_begin_at_different_positions_share_a_batch(tiny, prompts):
    """What runs once is what lies in front of all of them, whichever comes first."""
    cases = []
    for position in (-1, 0):
        vector = made(tiny, prompts, positions=[position])
        vector.reset(seed=1, std=0.5)
        cases.append((vector, prompts))
    for some in (cases, cases[::-1]):
        for (vector, _), found in zip(some, evaluate_many(tiny, some)):
            single = evaluate(tiny, vector, prompts)
            assert (found.E0, found.F) == pytest.approx((single.E0, single.F), abs=1e-5)

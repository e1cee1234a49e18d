"""The ruler's axes against a loop: one prompt, one sign and one strength at a time."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from helpers.activation_scaling.fitting import fit
from helpers.models.resume import Run
from helpers.models.run import last_logits
from helpers.observable_propagation.edits import edited
from helpers.ruler import learned, table
from helpers.ruler.axes import BUDGETS, MAIN, N_CHOOSE, N_POS, N_REPORT, Benches, counted, measured
from helpers.ruler.edits import Edit, ToldVec, last_points
from helpers.ruler.instruction import InFront
from helpers.ruler.methods import Method, Seen, constant
from helpers.ruler.pullback import pullback
from tests.ruler.small import small_task, three_layers

pytestmark = pytest.mark.unit
LAYER = 2


@pytest.fixture(scope="module")
def model(tokenizer):
    return three_layers(tokenizer)


@pytest.fixture(scope="module")
def task(model):
    return small_task(model)


def vectors_for(model, prompts) -> torch.Tensor:
    """A direction of each prompt that mostly, and not always, does what is meant."""
    v = model.W_U.T[prompts.correct] - model.W_U.T[prompts.wrong]
    return v + 5 * torch.outer(1.0 + prompts.correct, torch.arange(1.0, 33.0)).sin()


def adding(model) -> Edit:
    def on(prompts):
        return ToldVec(last_points(model, prompts.n_pos, LAYER), vectors_for(model, prompts))

    return Edit(on, 1, 1, LAYER)


@torch.no_grad()
def one_by_one(model, prompts, beta: float) -> np.ndarray:
    """Log-probabilities of every prompt: by a hook on it alone."""
    rows = []
    for row, v in enumerate(vectors_for(model, prompts)):
        with edited(model, LAYER, -1, lambda x, v=v: x + beta * v):
            rows.append(last_logits(model, prompts.tokens[[row]])[0])
    return torch.stack(rows).log_softmax(-1).numpy()


def lead(log_p: np.ndarray, prompts) -> np.ndarray:
    rows = np.arange(len(prompts))
    return log_p[rows, prompts.correct.numpy()] - log_p[rows, prompts.wrong.numpy()]


def kl(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    return (np.exp(after) * (after - before)).sum(-1)


def expected_gains(model, prompts, beta: float) -> dict[str, float]:
    up, none, down = (one_by_one(model, prompts, sign * beta) for sign in (1, 0, -1))
    leads, before = (lead(up, prompts), lead(down, prompts)), lead(none, prompts)
    gaps = np.minimum(leads[0], 0) - np.maximum(leads[1], 0)
    wrong_way = [*(leads[0] < before), *(leads[1] > before)]
    return {
        "E0": gaps.mean(),
        "gaps": gaps,
        "E0_base": (np.minimum(before, 0) - np.maximum(before, 0)).mean(),
        "swapped": np.mean((leads[0] > 0) & (leads[1] < 0)),
        "F": -(kl(up, none) + kl(down, none)).mean(),
        "wrong_way": np.mean(wrong_way),
    }


@pytest.mark.slow
def test_every_axis_is_what_a_loop_gives(model, task) -> None:
    betas = [0.1, 0.4, 1.1]
    rows = measured(Benches(model, task), adding(model), betas)
    choose, _ = task.neutral(N_CHOOSE, N_POS, held_out=False)
    report, following = task.neutral(N_REPORT, N_POS, held_out=True)
    for beta, row in zip(betas, rows):
        test = expected_gains(model, task.test, beta)
        train = expected_gains(model, task.train, beta)
        other = expected_gains(model, task.transfer, beta)
        expected = test | {"E0_train": train["E0"], "F_train": train["F"], "beta": beta}
        expected |= {"E0_transfer": other["E0"], "E0_transfer_base": other["E0_base"]}
        costs = {}
        for name, texts in (("kl_choose", choose), ("kl", report)):
            logs = [one_by_one(model, texts, sign * beta) for sign in (1, 0, -1)]
            costs[name] = np.mean([kl(logs[0], logs[1]), kl(logs[2], logs[1])])
        own = np.arange(len(report)), following.numpy()
        expected["ll"] = np.mean([logs[0][own] - logs[1][own], logs[2][own] - logs[1][own]])
        expected |= costs
        assert row.keys() == expected.keys()
        assert np.allclose(row.pop("gaps"), expected.pop("gaps"), atol=1e-3)
        assert row == pytest.approx(expected, abs=1e-5)
    # No axis agrees because nothing happens, or because all prompts are alike.
    assert 0 < rows[-1]["swapped"] < 1 and 0 < rows[-1]["wrong_way"] < 1
    assert abs(rows[-1]["ll"]) > 1e-2 and abs(rows[-1]["kl"] - rows[-1]["kl_choose"]) > 1e-3
    assert abs(rows[-1]["E0"] - rows[-1]["E0_train"]) > 1e-2


def test_passes_forward_and_backward_are_counted_by_prompts(model, task) -> None:
    run = Run.of(model, task.train.tokens)
    m = torch.ones(3, model.cfg.d_model, dtype=torch.float64).cumsum(0)
    with counted(model) as cost:
        pullback(model, run, m, [1])
        last_logits(model, task.test.tokens)
    assert (cost["forward"], cost["backward"]) == (3 * 4 + 6, 3 * 4)


class Two(Method):
    """Of two layers one is steered as meant, the other the other way."""

    name, source, needs = "two layers", "a test", "nothing"
    best: int

    def make(self, seen: Seen, layer: int) -> Edit:
        sign = 1 if layer == self.best else -1

        def on(prompts):
            v = model_vectors(seen.model, prompts)
            return ToldVec(last_points(seen.model, prompts.n_pos, layer), sign * v)

        return Edit(on, 1, 1, layer)


def model_vectors(model, prompts) -> torch.Tensor:
    return model.W_U.T[prompts.correct] - model.W_U.T[prompts.wrong]


@pytest.mark.parametrize("best", [1, 2])
def test_the_layer_with_the_greatest_gain_is_chosen(model, task, best: int) -> None:
    method = Two()
    method.best = best
    edit, beta, _ = table.chosen(Seen(model, task), Benches(model, task), method)
    assert edit.layer == best and beta > 0


def test_a_fit_that_two_methods_take_is_made_once_and_counted_twice(model, task, monkeypatch):
    fits = []
    monkeypatch.setattr(learned, "fit", lambda *args, **how: fits.append(1) or fit(*args, **how))
    seen, benches = Seen(model, task, epochs=2), Benches(model, task)
    kinds = (learned.Scalars, learned.ShuffledScalars, learned.Vectors)
    costs = [table.chosen(seen, benches, kind())[2] for kind in kinds]
    assert len(fits) == 2
    passes = [(cost["forward"], cost["backward"]) for cost in costs]
    assert passes[0] == passes[1] == passes[2] and passes[0][1] > 0


class Constant(Method):
    name, source, needs, layers = "constant", "a test", "nothing", "end"

    def make(self, seen: Seen, layer: int) -> Edit:
        return constant(seen, layer, model_vectors(seen.model, seen.train)[0])


def test_strengths_of_the_budgets_go_with_their_roots(model, task, monkeypatch) -> None:
    both = Seen(model, task), Benches(model, task)
    monkeypatch.setattr(table, "prepared", lambda *args, **sizes: both)
    rows = table.measure(model, task="small", seed=0, method="constant", kind=Constant)["rows"]
    betas = {row["budget"]: row["beta"] for row in rows}
    assert list(betas) == list(BUDGETS)
    for one, other in product(BUDGETS, BUDGETS):
        assert betas[one] / betas[other] == pytest.approx((one / other) ** 0.5)
    main = next(row for row in rows if row["budget"] == MAIN)
    assert main["kl_choose"] == pytest.approx(MAIN, rel=0.1) and main["layer"] == 3


def test_an_instruction_stands_behind_the_first_token_and_each_sign_has_its_own(model, task):
    texts = torch.tensor([5, 6]), torch.tensor([7, 8, 9])
    prompts = task.test
    logits = InFront(texts, 3, 3).logits(model, prompts, None, [1.0, -1.0, 0.5])
    for text, rows in zip((texts[0], texts[1], texts[0]), logits):
        for row, tokens in zip(rows, prompts.tokens):
            whole = torch.tensor([[tokens[0], *text, *tokens[1:]]])
            assert torch.allclose(last_logits(model, whole)[0], row, atol=1e-6)
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)


def test_neutral_texts_have_the_answers_of_the_test_prompts_in_turn(task) -> None:
    texts, following = task.neutral(8, 5, held_out=True)
    assert texts.correct_texts == (*task.test.correct_texts, *task.test.correct_texts[:2])
    assert texts.tokens.equal(task.held_out[:8, :5]) and following.equal(task.held_out[:8, 5])

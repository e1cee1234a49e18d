"""The benches without a browser: what their buttons do, and that errors stay in the panel."""

from __future__ import annotations

import re

import pytest
import torch

from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.points import Points
from helpers.benches import panel as panels
from helpers.benches.observables import ObservableBench
from helpers.benches.steering import SteeringBench, on_longer
from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.edits import steer

pytestmark = pytest.mark.unit


@pytest.fixture
def bench(tiny) -> SteeringBench:
    bench = SteeringBench(tiny)
    bench.prompt.value, bench.right.value, bench.wrong.value, bench.epochs.value = (
        "w1 w2 w3",
        "w4",
        "w5",
        3,
    )
    return bench


def fitted(bench: SteeringBench) -> SteeringBench:
    bench.start.click()
    bench.thread.join(60)
    return bench


@pytest.mark.parametrize("method", ["ActivScalar", "SteerVec"])
def test_fit_draws_a_map_and_the_slider_moves_the_answers(bench, method) -> None:
    bench.method.value = method
    fitted(bench)
    assert "Fitted" in bench.status.value and bench.progress.value == 3
    assert (
        bytes(bench.map.value).startswith(b"\x89PNG") and "attn_out of layer" in bench.caption.value
    )
    prompts, intervention = bench.fitted
    for (
        theta
    ) in intervention.theta.values():  # three epochs learn little: make it strong enough to be seen
        theta.data *= 0.5 / theta.abs().max()
    shown = []
    for beta in (1.0, -1.0):
        bench.beta.value = beta
        with intervention.applied(bench.model, beta), torch.no_grad():
            chance = last_logits(bench.model, prompts.tokens).softmax(-1)[0, prompts.correct].item()
        shown.append(f"w4: {chance:.1%}")
        assert shown[-1] in bench.now.value
    assert shown[0] != shown[1] and not bench.start.disabled and bench.stop.disabled


def test_at_strength_zero_the_bench_shows_the_model_itself(bench) -> None:
    fitted(bench)
    bench.beta.value = 1.0
    bench.beta.value = 0.0
    prompts, _ = bench.fitted
    chance = last_logits(bench.model, prompts.tokens).softmax(-1)[0, prompts.correct].item()
    assert f"w4: {chance:.1%}" in bench.now.value


def test_stop_ends_a_fit_and_keeps_what_was_learned(bench) -> None:
    bench.epochs.value = 500
    bench.start.click()
    bench.stop.click()
    bench.thread.join(60)
    assert (
        "Stopped early" in bench.status.value
        and bench.fitted is not None
        and bench.progress.value < 500
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("right", "w1 w2", "one token is needed"),
        ("wrong", "w4", "the same token"),
        ("sites", (), "no site"),
    ],
)
def test_bad_input_is_said_in_the_panel_before_any_work(bench, field, value, says) -> None:
    getattr(bench, field).value = value
    bench.start.click()
    assert says in bench.status.value and "role='alert'" in bench.status.value
    assert bench.thread is None and not bench.start.disabled


def test_parameters_of_a_prompt_act_at_its_positions_of_a_longer_text_only(tiny) -> None:
    intervention = ActivScalar(Points.of(tiny, 3), dtype=torch.float64)
    intervention.reset(0, std=0.5)
    longer = on_longer(intervention, 5)
    tokens = torch.tensor([[0, 1, 2, 3, 4]])
    by_hand = ActivScalar(Points.of(tiny, 5), dtype=torch.float64)
    for site, theta in intervention.theta.items():
        by_hand.theta[site].data[:, :3] = theta.data
    with longer.applied(tiny), torch.no_grad():
        one = last_logits(tiny, tokens)
    with by_hand.applied(tiny), torch.no_grad():
        two = last_logits(tiny, tokens)
    torch.testing.assert_close(one, two)
    assert not torch.allclose(one, last_logits(tiny, tokens))


def test_the_model_writes_on_with_and_without_steering(bench) -> None:
    fitted(bench)
    for theta in bench.fitted[1].theta.values():
        theta.data.fill_(20.0)
    bench.beta.value, bench.n_new.value = 2.0, 3
    bench.write.click()
    steered, plain = re.findall(r"</strong> …(.*?)</p>", bench.written.value)
    tokens = bench.fitted[0].tokens
    for _ in range(3):
        tokens = torch.cat(
            [tokens, last_logits(bench.model, tokens).argmax(-1, keepdim=True)], dim=1
        )
    assert plain == bench.model.tokenizer.decode(tokens[0, -3:]) != steered


@pytest.fixture
def reading(tiny) -> ObservableBench:
    bench = ObservableBench(tiny)
    bench.prompt.value, bench.plus.value, bench.minus.value = "w1 w2 w3", "w4 w5", "w6"
    bench.start.click()
    return bench


def test_an_observable_ranks_the_heads_and_a_step_moves_it(reading) -> None:
    lengths = reading.features.norm(dim=-1)
    assert reading.head.options[0][1] == divmod(int(lengths.argmax()), lengths.shape[1])
    layer, head = reading.head.value
    assert f"{layer}.{head}" in reading.caption.value
    told = lambda: re.search(r"Observable (\S+) → (\S+) nats", reading.now.value).groups()
    before, after = told()
    assert before == after, "a step of no length"
    reading.strength.value = 2.0
    stream = read_activations(reading.model, reading.tokens, [f"blocks.{layer}.hook_resid_pre"])[0][
        f"blocks.{layer}.hook_resid_pre"
    ][0, -1]
    direction = reading.features[layer, head] / reading.features[layer, head].norm()
    logits = steer(reading.model, reading.tokens, layer, -1, 2 * stream.norm() * direction[None])[0]
    assert (
        told() == (before, f"{reading.observable.measure(logits).item():+.2f}")
        and told()[1] != before
    )


def test_two_lists_weigh_the_same(reading) -> None:
    assert sorted(weight for _, _, weight in reading.observable.terms) == [-1.0, 0.5, 0.5]


def test_while_a_fit_has_the_model_the_other_bench_says_so_and_works_afterwards(
    bench, reading, monkeypatch
) -> None:
    """Both put hooks on the same model: one must not run through the other's."""
    monkeypatch.setattr(panels, "PATIENCE", 0.05)
    bench.epochs.value = 500
    bench.start.click()
    while not bench.progress.value:
        bench.thread.join(0.01)
    reading.strength.value = 1.0
    assert "busy with a fit" in reading.status.value
    bench.stop.click()
    bench.thread.join(60)
    still = reading.now.value
    reading.strength.value = 0.5
    assert reading.now.value != still and "+0.5 times" in reading.now.value


@pytest.mark.parametrize(
    ("plus", "minus", "says"), [("", "w1", "is empty"), ("w1", "w1", "every weight is 0")]
)
def test_lists_that_ask_nothing_are_said_in_the_panel(reading, plus, minus, says) -> None:
    reading.plus.value, reading.minus.value = plus, minus
    reading.start.click()
    assert says in reading.status.value

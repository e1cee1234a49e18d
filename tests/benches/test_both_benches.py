"""The benches without a browser: what they compute and refuse, and that they match the helpers."""

from __future__ import annotations

import os
import re
import signal

import ipywidgets as widgets
import pytest
import torch

from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.points import Points
from helpers.benches import controls, observables, steering
from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.observables import Observable

pytestmark = pytest.mark.unit
TYPED = {"prompt": "w1 w2 w3", "right": "w4", "wrong": "w5", "method": "ActivScalar"}
TYPED |= {"sites": ("attn_out",), "margin": 1.0, "lambda_f": 1.0, "lambda_m": 0.1, "epochs": 3}


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the benches say."""
    lines: list[str] = []
    for bench in (steering, observables):
        monkeypatch.setattr(bench, "say", lines.append)
    return lines


@pytest.mark.parametrize("method", steering.METHODS)
@pytest.mark.slow
def test_a_fit_is_reported_and_its_map_is_put_in_words(tiny, said, method) -> None:
    prompts, intervention = steering.fit_prompt(tiny, **TYPED | {"method": method})
    assert type(intervention).__name__ == method and intervention.vec().abs().max() > 0
    steering.show_map(tiny, prompts, intervention)
    assert re.search(r"Fitted: .* E0 = -?\d", said[1])
    assert "Strongest: attn_out of layer" in said[2]


def test_a_table_has_the_next_tokens_at_each_strength_and_the_model_s_own_in_the_middle(tiny, said):
    prompts, intervention = steering.fit_prompt(tiny, **TYPED)
    table = steering.side_by_side(tiny, prompts, intervention)
    assert list(table) == ["β = −1", "β = 0", "β = +1"]
    own = steering.top_tokens(tiny, last_logits(tiny, prompts.tokens)[0])
    assert list(table["β = 0"]) == list(own["next token"] + "  " + own["probability"])
    assert list(table["β = +1"]) != list(table["β = 0"])


def test_an_example_fills_in_its_controls() -> None:
    boxes = [controls.labelled(widgets.Text, name, "") for name in ("one", "two")]
    chosen = controls.examples({"a": ("1", "2"), "b": ("3", "4")}, boxes)
    assert [box.value for box in boxes] == ["", ""]  # until one is chosen
    chosen.value = "b"
    assert [box.value for box in boxes] == ["3", "4"]


def test_nothing_runs_until_the_button_is_pressed(monkeypatch) -> None:
    shown, ran = [], []
    monkeypatch.setattr(controls, "display", shown.append)
    texts = {name: controls.labelled(widgets.Text, name, "") for name in ("one", "two")}
    controls.on_press("Go", lambda **values: ran.append(values), **texts)
    for box in texts.values():
        box.value = "typed"  # as a reader who leaves it, or an example that is chosen
    assert not ran
    (form,) = shown
    form.manual_button.click()
    assert ran == [{"one": "typed", "two": "typed"}]


def test_an_interrupt_ends_a_fit_after_its_epoch_and_leaves_no_hook(tiny, said, monkeypatch):
    tokens, vec = torch.tensor([[0, 1, 2, 3, 4]]), ActivScalar.vec
    plain, calls = last_logits(tiny, tokens), []

    def interrupting(self):
        calls.append(None)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return vec(self)

    monkeypatch.setattr(ActivScalar, "vec", interrupting)
    _, intervention = steering.fit_prompt(tiny, **TYPED | {"epochs": 500})
    assert "Stopped early" in said[1] and intervention.vec().abs().max() > 0
    assert len(calls) < 20 and torch.equal(last_logits(tiny, tokens), plain)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"right": ""}, "the answer is empty"),
        ({"right": "w1 w2"}, "one token is needed"),
        ({"wrong": "w4"}, "token"),
        ({"sites": ()}, "no site"),
    ],
)
def test_input_that_cannot_be_fitted_is_refused(tiny, change, message) -> None:
    with pytest.raises(ValueError, match=message):
        steering.fit_prompt(tiny, **TYPED | change)


def test_parameters_of_a_prompt_act_at_its_positions_of_a_longer_text_only(tiny) -> None:
    intervention = ActivScalar(Points.of(tiny, 3), dtype=torch.float64)
    intervention.reset(0, std=0.5)
    by_hand = ActivScalar(Points.of(tiny, 5), dtype=torch.float64)
    for site, theta in intervention.theta.items():
        by_hand.theta[site].data[:, :3] = theta.data
    tokens, logits = torch.tensor([[0, 1, 2, 3, 4]]), []
    for each in (steering.longer(intervention, 5), by_hand):
        with each.applied(tiny), torch.no_grad():
            logits.append(last_logits(tiny, tokens))
    torch.testing.assert_close(*logits)
    assert not torch.allclose(logits[0], last_logits(tiny, tokens))


def test_the_model_writes_on_with_and_without_steering(tiny) -> None:
    points, tokens = Points.of(tiny, 3, sites=steering.SITES[1:]), torch.tensor([[0, 1, 2]])
    intervention = ActivScalar(points, dtype=torch.float64)
    intervention.reset(0, std=100.0)
    plain, steered = (steering.continuation(tiny, tokens, 3, intervention, beta) for beta in (0, 2))
    for _ in range(3):
        tokens = torch.cat([tokens, last_logits(tiny, tokens).argmax(-1, keepdim=True)], dim=1)
    assert plain == tiny.tokenizer.decode(tokens[0, -3:]) != steered


def test_heads_are_ranked_by_length() -> None:
    features = torch.zeros(2, 3, 4)
    features[1, 2, 0], features[0, 1, 3] = 5.0, -7.0
    assert list(observables.longest_heads(features).items())[:2] == [
        ("0.1 (7.00)", (0, 1)),
        ("1.2 (5.00)", (1, 2)),
    ]


def test_a_step_moves_the_observable_as_a_hook_typed_here_does(tiny) -> None:
    observable = observables.mean_difference(tiny, "w4 w5", "w6")
    features, tokens = torch.randn(2, 4, 32, dtype=torch.float64), torch.tensor([[0, 1, 2, 3]])
    name, direction = "blocks.1.hook_resid_pre", features[1, 2] / features[1, 2].norm()
    stream, plain = read_activations(tiny, tokens, [name])
    arguments = (tiny, tokens, observable, features, (1, 2), 2)
    before, after, _ = observables.step(*arguments, 0.0)
    assert before == pytest.approx(after) == pytest.approx(observable.measure(plain).item())

    def add(resid, hook):
        resid = resid.clone()
        resid[:, 2] += 2 * stream[name][0, 2].norm() * direction
        return resid

    with tiny.hooks(fwd_hooks=[(name, add)]), torch.no_grad():
        moved = observable.measure(last_logits(tiny, tokens)).item()
    assert observables.step(*arguments, 2.0)[1] == pytest.approx(moved) != before


def test_two_lists_weigh_the_same_and_a_question_without_content_is_refused(tiny) -> None:
    observable = observables.mean_difference(tiny, "w4 w5", "w6")
    assert sorted(weight for _, _, weight in observable.terms) == [-1.0, 0.5, 0.5]
    assert observables.mean_difference(tiny, "w4", "") == Observable.of(tiny, {" w4": 1})
    for plus, minus, message in (("", "w1", "is empty"), ("w1", "w1", "every weight")):
        with pytest.raises(ValueError, match=message):
            observables.mean_difference(tiny, plus, minus)

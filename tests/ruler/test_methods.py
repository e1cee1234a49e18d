"""What each method's vector is, by its definition, on a random model of three layers."""

from __future__ import annotations

import pytest
import torch

from helpers.activation_scaling.controls import shuffled
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.models.norms import Norm
from helpers.models.resume import Run
from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.paths import path, path_feature
from helpers.observable_propagation.pull_back import NormWeights
from helpers.prompts.prompts import Prompts
from helpers.ruler.edits import (
    GatedVec,
    HeadGates,
    LastDynScalar,
    LoReFT,
    SetReading,
    last_points,
    size_of,
    steered,
)
from helpers.ruler.learned import EVERYWHERE, RankOne, Scalars, ShuffledScalars, Vectors, places_of
from helpers.ruler.methods import Seen, told
from helpers.ruler.vectors import (
    HeadsVector,
    HeadVector,
    LeastNorm,
    MeanDifference,
    PathVector,
    RandomDirection,
)
from tests.ruler.small import small_task, three_layers

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def seen(tokenizer) -> Seen:
    model = three_layers(tokenizer)
    return Seen(model, small_task(model), epochs=1, n_texts=6)


def vectors_of(seen: Seen, edit) -> torch.Tensor:
    """What an edit adds to the test prompts at β = 1, [prompt d_model]."""
    made = edit.on(seen.task.test)
    (theta,) = made.theta.values()
    return theta.detach().view(-1, seen.model.cfg.d_model)


def test_what_a_method_sees_is_the_stream_at_the_last_token(seen) -> None:
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)]
    kept, logits = read_activations(seen.model, seen.train.tokens, names)
    for layer, name in enumerate(names):
        assert torch.allclose(seen.stream(layer), kept[name][:, -1], atol=1e-6)
    expected = 0.1 * kept[names[1]][:, -1].norm(dim=-1).mean()
    assert seen.length == pytest.approx(expected.item())
    rows = torch.arange(4)
    gaps = logits[rows, seen.train.correct] - logits[rows, seen.train.wrong]
    assert torch.allclose(seen.leaning, gaps, atol=1e-5)
    many = Seen(seen.model, seen.task, n_texts=54).text_runs
    assert [run.tokens.shape for run in many] == [(18, 8), (18, 17), (18, 26)]


def path_vector(seen: Seen, text: str, m: torch.Tensor) -> torch.Tensor:
    return path_feature(seen.model, path(seen.model, text), m, norms=NormWeights())


def longest_of(vectors: list[torch.Tensor]) -> torch.Tensor:
    return max(vectors, key=lambda vector: vector.norm().item())


def test_vectors_of_heads_and_paths_are_those_of_the_second_paper(seen) -> None:
    heads = range(seen.model.cfg.n_heads)
    observables = seen.observables(seen.task.test)
    found = {kind: vectors_of(seen, kind().make(seen, 1)) for kind in (HeadVector, PathVector)}
    several = vectors_of(seen, HeadsVector().make(seen, 1))
    for row, m in enumerate(observables):
        single = [path_vector(seen, f"1.{head}", m) for head in heads]
        last = [path_vector(seen, f"2.{head}", m) for head in heads]
        pairs = [path_vector(seen, f"1.{a} → 2.{b}", m) for a in heads for b in heads]
        expected = {HeadVector: longest_of(single), PathVector: longest_of(pairs)}
        for kind, vector in expected.items():
            assert torch.allclose(found[kind][row], seen.length * vector / vector.norm())
        total = torch.stack(single + last).sum(0)
        assert torch.allclose(several[row], seen.length * total / total.norm())


def test_the_least_norm_vector_moves_the_difference_by_a_nat_and_not_the_sum(seen) -> None:
    final, x = Norm.of(seen.model, "ln_final"), seen.run.ends
    for prompt, v in enumerate(vectors_of(seen, LeastNorm().make(seen, 3))):
        test = seen.task.test.at([prompt])
        right, wrong = (seen.model.W_U[:, token] for token in (test.correct[0], test.wrong[0]))
        moved = []
        for m in (right - wrong, right + wrong):
            slope = (final.weight * final.centre(v) / final.scale(x)) @ m  # σ held
            moved.append(slope.mean().item())
        assert moved == pytest.approx([1.0, 0.0], abs=1e-6)


def test_the_mean_difference_points_to_the_prompts_that_lean_to_the_correct_answer(seen) -> None:
    (v,) = vectors_of(seen, MeanDifference().make(seen, 1))
    order, x = seen.leaning.argsort(descending=True), seen.stream(1)
    expected = x[order[:2]].mean(0) - x[order[2:]].mean(0)
    assert torch.allclose(v, seen.length * expected / expected.norm())


def test_random_directions_differ_by_seed_and_layer(seen) -> None:
    other = Seen(seen.model, small_task(seen.model, seed=1))
    drawn = [(seen, 1), (seen, 2), (other, 1), (other, 2)]
    vectors = [vectors_of(each, RandomDirection().make(each, layer))[0] for each, layer in drawn]
    unit = torch.stack(vectors) / seen.length
    assert torch.allclose((unit @ unit.T).diagonal(), torch.ones(4).double())
    assert ((unit @ unit.T).fill_diagonal_(0).abs() < 0.7).all()


def test_a_vector_is_asked_for_once_for_each_pair_of_answers(seen) -> None:
    """Pairs that share one answer are different pairs."""
    texts, right, wrong = ["w1 w2"] * 4, ["w5", "w5", "w6", "w5"], ["w7", "w8", "w7", "w7"]
    prompts, asked = Prompts.of(seen.model, texts, right, wrong), []

    def vectors(some: Prompts) -> torch.Tensor:
        asked.append(len(some))
        return seen.observables(some)

    edit = told(seen, 1, vectors)
    for _ in range(2):
        found = edit.on(prompts).theta["resid_post"].detach().view(4, -1)
        assert torch.allclose(found, seen.observables(prompts))
    assert asked == [len(seen.train), 3]


KINDS = {
    ActivScalar: (None, EVERYWHERE),
    SteerVec: (2, ("resid_post",)),
    LastDynScalar: (None, EVERYWHERE),
    LoReFT: (1, ("resid_post",)),
    GatedVec: (3, ("resid_post",)),
    HeadGates: (None, ("z",)),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_resumed_run_gives_the_logits_of_a_whole_one(seen, kind) -> None:
    model, tokens = seen.model, seen.task.test.tokens
    layer, sites = KINDS[kind]
    made = kind(last_points(model, tokens.shape[1], layer, *sites), dtype=torch.float64)
    made.reset(seed=2, std=0.4)
    betas = [1.0, -0.5, 0.0]
    with torch.no_grad():
        found = steered(model, Run.of(model, tokens), made, betas)
        for beta, rows in zip(betas, found):
            with made.applied(model, beta):
                assert torch.allclose(last_logits(model, tokens), rows, atol=1e-5)
    assert not torch.allclose(found[0], found[2], atol=1e-3)


@pytest.mark.parametrize(("beta", "reads"), [(0.5, 0.5), (1.0, 2.0), (-1.0, -2.0), (2.0, 4.0)])
def test_a_reading_is_reached_at_full_strength_and_not_overshot(seen, beta, reads) -> None:
    """From 1 below the target's sign: half-way at β = ½, and βt from β = 1 on."""
    y, mean = torch.linspace(-1, 1, 64).double().view(2, 32)
    made = SetReading(last_points(seen.model, 3, 1), y[None], mean, target=2.0)
    h = (mean - y / (y @ y))[None, None]  # reads −1
    after = h + made.change(h, made.theta["resid_post"][0], torch.tensor(beta).double())
    assert ((after - mean) @ y).item() == pytest.approx(reads)


def test_sizes_and_places_leave_out_what_is_below_a_hundredth(seen) -> None:
    assert size_of(torch.tensor([1.0, 0.05, -0.5, 0.009, 0.0])) == 3
    assert size_of(torch.zeros(4)) == 0
    scalars = ActivScalar(last_points(seen.model, 3, None, *EVERYWHERE), dtype=torch.float64)
    scalars.theta["attn_out"].data[:, 0] = torch.tensor([1.0, 0.02, 0.005])
    edit = places_of(seen, scalars)
    assert (edit.size, edit.places, edit.layer) == (2, 2, None)
    vector = SteerVec(last_points(seen.model, 3, 2), dtype=torch.float64)
    vector.theta["resid_post"].data[0, 0, :2] = torch.tensor([1.0, 0.5])
    edit = places_of(seen, vector)
    assert (edit.size, edit.places, edit.layer) == (2, 1, 2)
    longer = edit.on(seen.task.transfer)
    assert longer.points.n_pos == seen.task.transfer.n_pos != 3
    assert torch.equal(longer.vec(), vector.vec())


def test_learned_edits_act_where_their_method_says(seen) -> None:
    one, every = RankOne().fitted(seen, 2), Vectors().fitted(seen, 3)
    assert one.points.layers == (1,) and one.points.sites == ("resid_post",)
    assert every.points.layers == (0, 1, 2) and every.points.sites == EVERYWHERE
    assert one.points.positions == every.points.positions == (seen.train.n_pos - 1,)


def test_what_is_learned_and_its_control_follow_the_task_s_seed(seen) -> None:
    other = Seen(seen.model, small_task(seen.model, seed=1), epochs=1, n_texts=6)
    assert not torch.equal(RankOne().fitted(seen, 1).vec(), RankOne().fitted(other, 1).vec())
    control = ShuffledScalars().make(other, 3).on(other.train)
    expected = shuffled(Scalars().fitted(other, 3), seed=1)
    assert torch.equal(control.vec(), expected.vec())

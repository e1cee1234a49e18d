"""The observable-propagation paper's numbers that need no data, on the paper's own model."""

from __future__ import annotations

import pytest
import torch

from helpers.models.load import load_model
from helpers.models.norms import Norm
from helpers.observable_propagation.coupling import cosine
from helpers.observable_propagation.features import head_features, ov_svd
from helpers.observable_propagation.observables import Observable

pytestmark = [pytest.mark.integration, pytest.mark.paper]


@pytest.fixture(scope="module")
def neo():
    return load_model("gpt-neo-1.3b", device="cpu")


@pytest.fixture(scope="module")
def m(neo) -> torch.Tensor:
    pairs = ({" she": 1, " he": -1}, {" her": 1, " him": -1})
    return torch.stack([Observable.of(neo, pair).vector(neo) for pair in pairs])


@pytest.fixture(scope="module")
def features(neo, m) -> torch.Tensor:
    return head_features(neo, m)  # [observable layer head d_model]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (0, {(18, 11): 72.2168, (17, 14): 70.7219, (13, 11): 45.9200, (15, 13): 39.4049}),
        (1, {(18, 11): 69.2137, (17, 14): 68.9342, (13, 11): 51.8211, (15, 13): 44.0450}),
    ],
    ids=["n_subj", "n_obj"],
)
def test_the_feature_norms_without_layernorm_are_the_papers(features, row, expected):
    """OP-9, Fig. 1."""
    norms = features[row].norm(dim=-1)
    for (layer, head), norm in expected.items():
        assert norms[layer, head].item() == pytest.approx(norm, abs=2e-3)
    leading = {divmod(int(i), norms.shape[1]) for i in norms.flatten().topk(4).indices}
    assert leading == set(expected)


def test_the_cosines_between_the_two_observables_features_are_the_papers(features, m):
    """OP-12, Fig. 3a."""
    for (layer, head), expected in {
        (17, 14): 0.9882,
        (18, 11): 0.9831,
        (15, 13): 0.9816,
        (13, 11): 0.9352,
    }.items():
        assert cosine(*features[:, layer, head]).item() == pytest.approx(expected, abs=1e-4)
    assert cosine(*m).item() == pytest.approx(0.5685, abs=1e-4)


@pytest.mark.parametrize(
    ("head", "subject", "object_"),
    [((17, 14), 0.8204, 0.7955), ((15, 13), 0.1257, 0.1659), ((13, 11), 0.5802, 0.5986)],
    ids=["17.14", "15.13", "13.11"],
)
def test_the_best_cosines_with_singular_vectors_are_the_papers(
    neo, features, head, subject, object_
):
    """OP-14, section 6.8."""
    read = ov_svd(neo, head[0]).read[head[1]]
    for row, expected in enumerate((subject, object_)):
        feature = features[row, head[0], head[1]]
        assert (read @ feature / feature.norm()).abs().max().item() == pytest.approx(
            expected, abs=1e-3
        )


def test_the_mean_variance_of_layernorm_weights_is_the_papers(neo):
    """OP-7, appendix A.2."""
    layers = range(neo.cfg.n_layers)
    names = ["ln_final", *(f"blocks.{layer}.{ln}" for layer in layers for ln in ("ln1", "ln2"))]
    ours = torch.stack([Norm.of(neo, name).weight.var(correction=0) for name in names])
    # "Across all LayerNorms", says the paper, and draws those before attention; which of the two
    # it averaged is not stated.
    means = [ours.mean().item(), ours[1::2].mean().item()]
    assert any(mean == pytest.approx(0.007827, rel=2e-3) for mean in means)

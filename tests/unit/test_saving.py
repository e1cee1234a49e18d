"""Saving and loading: what comes back is what was saved, and only onto the model and length it belongs to."""

from __future__ import annotations

import pytest
import torch
from safetensors import SafetensorError

from helpers import saving
from helpers.interventions import ActivScalar, SteerVec, steered_logits
from helpers.models import fingerprint
from helpers.saving import load, save
from helpers.sites import Points
from tests.conftest import random_model

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 8).view(1, 7)


def saved(tiny, path, kind=ActivScalar):
    intervention = kind(Points.of(tiny, 7, sites=["resid_post", "z"], layers=[1], positions=[0, -1]), dtype=torch.float64)
    intervention.reset(seed=2, std=0.2)
    save(intervention, tiny, path)
    return intervention


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_a_loaded_intervention_equals_the_saved_one_bit_for_bit(tiny, tmp_path, kind):
    before = saved(tiny, tmp_path / "theta", kind)
    after = load(tmp_path / "theta", tiny, n_pos=7)
    assert type(after) is kind and after.points == before.points
    assert torch.equal(after.vec(), before.vec()) and after.vec().dtype == torch.float64
    assert torch.equal(*(steered_logits(tiny, TOKENS, which, [1.0]) for which in (before, after)))
    assert [path.name for path in tmp_path.iterdir()] == ["theta"], "no half-written file is left"


def test_another_model_of_the_same_shape_is_refused(tiny, tokenizer, tmp_path):
    saved(tiny, tmp_path / "theta")
    twin = random_model(tiny.cfg.model_name, tokenizer, seed=1)
    assert fingerprint(twin) != fingerprint(tiny)
    with pytest.raises(ValueError, match="has weights"):
        load(tmp_path / "theta", twin)


def test_another_length_is_refused(tiny, tmp_path):
    saved(tiny, tmp_path / "theta")
    with pytest.raises(ValueError, match="tied to prompts of 7 tokens, not 8"):
        load(tmp_path / "theta", tiny, n_pos=8)


def test_a_file_that_is_missing_truncated_or_something_else_is_refused(tiny, tmp_path):
    path = tmp_path / "theta"
    with pytest.raises(FileNotFoundError):
        load(path, tiny)
    saved(tiny, path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a file of tensors"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            load(path, tiny)


def test_a_full_disk_keeps_the_older_file(tiny, tmp_path, monkeypatch):
    before = saved(tiny, tmp_path / "theta")

    def full(*args, **kwargs):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(OSError, match="Is the disk full"):
        saved(tiny, tmp_path / "theta", SteerVec)
    assert torch.equal(load(tmp_path / "theta", tiny).vec(), before.vec())
    assert [path.name for path in tmp_path.iterdir()] == ["theta"]

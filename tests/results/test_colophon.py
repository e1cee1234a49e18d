"""What a chapter says about its own run."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest
from psutil import Process

from helpers.models.load import fingerprint
from helpers.results import glue
from helpers.results.glue import colophon, peak_memory
from helpers.settings import SETTINGS

pytestmark = pytest.mark.unit


def test_the_colophon_states_model_weights_profile_and_versions_of_the_run(tiny) -> None:
    text = colophon(tiny).data
    facts = (SETTINGS.model, fingerprint(tiny), SETTINGS.profile, f"torch {version('torch')}")
    for fact in (*facts, "float64", "seconds", "on 20"):
        assert fact in text, fact


def test_the_colophon_keeps_time_and_memory_for_other_pages(tiny, monkeypatch) -> None:
    shown = colophon(tiny)
    run = shown.metadata["run"]
    assert f"{run['seconds']:.0f} seconds, peak memory {run['peak_gb']:.1f} GB" in shown.data
    monkeypatch.setattr(glue, "peak_memory", lambda: None)  # a system that does not say
    assert "peak memory" not in colophon(tiny).data


def test_the_peak_memory_covers_what_is_held_and_stays_when_it_is_freed() -> None:
    held = np.ones(1 << 24)
    now = Process().memory_info().rss / 1e9
    assert held.nbytes / 1e9 < now <= peak_memory() * 1.001
    del held
    assert now <= peak_memory() * 1.001 < 100, "in GB"

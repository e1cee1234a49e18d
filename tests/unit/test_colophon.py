"""What a chapter says of its own run."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from helpers.models import fingerprint
from helpers.pages import colophon
from helpers.settings import SETTINGS

pytestmark = pytest.mark.unit


def test_the_colophon_states_model_weights_profile_and_versions_of_the_run(tiny) -> None:
    text = colophon(tiny).data
    for fact in (SETTINGS.model, fingerprint(tiny), SETTINGS.profile, f"torch {version('torch')}", "float64", "seconds on 20"):
        assert fact in text, fact

"""Rows of people in two halves."""

from __future__ import annotations

import pytest
import torch

from helpers.prompts.people import split_rows

pytestmark = pytest.mark.unit

FEMALE = torch.tensor([True, False, True, True, False, False, True, False, False])


def test_halves_of_rows_share_none_and_are_balanced():
    chosen, others = split_rows(FEMALE, 2, seed=0)
    assert sorted([*chosen.tolist(), *others.tolist()]) == list(range(len(FEMALE)))
    assert FEMALE[chosen].tolist() == [True, True, False, False]
    assert FEMALE[others].tolist() == [True, True, False, False, False]
    again = split_rows(FEMALE, 2, seed=0)[0]
    assert torch.equal(chosen, again)
    assert any(not torch.equal(chosen, split_rows(FEMALE, 2, seed=k)[0]) for k in range(1, 5))


@pytest.mark.parametrize("per_gender", [0, 4])
def test_a_half_without_a_counterpart_is_refused(per_gender):
    with pytest.raises(ValueError, match="per_gender|two halves have room for 1 to 3"):
        split_rows(FEMALE, per_gender, seed=0)

"""Observable propagation on the embedded model: names, heads, patching."""

from __future__ import annotations

import pytest

from helpers.models.direct import direct_attribution
from helpers.models.run import last_logits
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.pull_back import NormWeights
from helpers.prompts.people import (
    OBJECT,
    OCCUPATION,
    SUBJECT,
    SUBJECT_GROUPS,
    NamePrompts,
    paper_people,
    template_for,
    two_halves,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def n_subj(smollm2) -> Observable:
    return Observable.of(smollm2, {" she": 1, " he": -1})


@pytest.fixture(scope="module")
def subject(smollm2) -> NamePrompts:
    return NamePrompts.of(smollm2, SUBJECT, paper_people(smollm2))


def test_all_but_one_of_the_papers_names_are_one_token(smollm2):
    assert len(paper_people(smollm2)) == 19 and ("Chloe", "F") not in paper_people(smollm2)


@pytest.mark.parametrize("template", [SUBJECT, OBJECT, OCCUPATION, *SUBJECT_GROUPS[1:]])
def test_every_template_has_its_name_at_one_position(smollm2, template):
    prompts = NamePrompts.of(smollm2, template, paper_people(smollm2))
    for (name, _), token in zip(prompts.people, prompts.tokens[:, prompts.name_position]):
        assert smollm2.tokenizer.decode([int(token)]) == " " + name
    women, men = prompts.pairs()
    assert len(women) == len(men) == 9 and prompts.from_paper.all()
    assert (prompts.tokens[:, 0] == smollm2.tokenizer.bos_token_id).all()


def test_names_and_templates_that_do_not_fit_are_refused(smollm2):
    with pytest.raises(ValueError, match=r"must have ' \{name\}' in it"):
        NamePrompts.of(smollm2, "A friend of mine", [("Jane", "F")])
    with pytest.raises(ValueError, match="' Chloe' is . tokens"):
        NamePrompts.of(smollm2, SUBJECT, [("Chloe", "F")])


def test_the_halves_share_no_name_and_are_balanced(smollm2):
    choose, report, dropped = two_halves(smollm2, seed=3)
    assert not set(choose) & set(report)
    for half in (choose, report):
        assert sum(sex == "F" for _, sex in half) * 2 == len(half) >= 40
    assert dropped["names of several tokens"] > 0
    assert (choose, report) == two_halves(smollm2, seed=3)[:2] != two_halves(smollm2, seed=4)[:2]
    with pytest.raises(ValueError, match="there are names for 1 to"):
        two_halves(smollm2, per_gender=1000)


def test_fresh_names_and_templates_are_others_that_ask_the_same(smollm2):
    used = {name for half in two_halves(smollm2)[:2] for name, _ in half}
    choose, report, _ = two_halves(smollm2, per_gender=24, fresh=True)
    assert not used & {name for name, _ in choose + report}
    for template in (SUBJECT, OBJECT, OCCUPATION, *SUBJECT_GROUPS):
        assert template_for(0, template) == template != template_for(1, template)
        assert len(NamePrompts.of(smollm2, template_for(1, template), choose)) == 48
    with pytest.raises(ValueError, match="has no counterpart"):
        template_for(1, "So, {name}")


def test_the_model_prefers_the_pronoun_of_the_name(smollm2, n_subj, subject):
    measured = n_subj.measure(last_logits(smollm2, subject.tokens))
    assert measured[subject.female].mean() > 3 and measured[~subject.female].mean() < -1


def test_one_head_leads_by_norm_by_attribution_and_by_patching(smollm2, n_subj, subject):
    m = n_subj.vector(smollm2)
    norms = head_features(smollm2, m, norms=NormWeights()).norm(dim=-1)
    effects = path_patching(smollm2, *subject.pairs(), n_subj).mean(0)
    heads = direct_attribution(smollm2, subject.tokens, m).heads.sum(-1)
    attribution = heads[subject.female].mean(0) - heads[~subject.female].mean(0)
    assert norms.argmax() == effects.argmax() == attribution.argmax() == 26 * 9 + 2

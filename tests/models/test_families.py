"""What the helpers say of tiny random models of many families is right, or is refused.

The references are hooks on the models' own modules and autograd through one path.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import MethodType

import pytest
import torch

from helpers.models.direct import direct_attribution
from helpers.models.formulas import check, facts, require
from helpers.models.prefix import Runs
from helpers.models.resume import Run
from helpers.models.run import last_logits, read_activations, unembed
from helpers.observable_propagation.edits import edited, steer
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.paths import path, path_feature, reading
from helpers.observable_propagation.pull_back import NormGradients
from tests.models.families import BEGIN, END, FAMILIES, PAGE, family, row, table
from tests.observable_propagation.one_path import gradient

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 15).view(2, 7)
OTHER = torch.arange(31, 45).view(2, 7)
PATHS = {"0.1": [4, -1], "1.2": [5, -1], "0.1 → 1.2": [2, 4, -1], "0.3 → MLP1": [4, -1, -1]}
PATHS |= {"MLP0 → 1.3": [4, 4, -1], "1.0 → MLP1": [5, -1, -1], "MLP0 → MLP1": [-1, -1, -1]}
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tokenizer):
    return family(request.param, tokenizer)


def close(ours: torch.Tensor, theirs: torch.Tensor, error: float = 1e-6) -> bool:
    """By length: single entries of a vector may be near 0, and some norms are in 32 bits."""
    return bool((ours - theirs).norm() <= error * theirs.norm())


@pytest.mark.slow
def test_every_formula_that_the_self_check_passes_gives_the_models_own_numbers(model) -> None:
    n, faults = Observable.of(model, {"w3": 1, "w5": -1}), facts(model).faults
    logits = last_logits(model, TOKENS)
    if not {"norms", "logits"} & set(faults):
        x = read_activations(model, TOKENS, ["ln_final.hook_in"])[0]["ln_final.hook_in"][:, -1]
        assert close(unembed(model, x), logits)
        assert not close(unembed(model, x.roll(1, -1)), logits)
        assert close(n.measure_stream(model, x), n.measure(logits))
    if {"norms", "values", "attention", "stream", "logits"} & set(faults):
        return
    parts = direct_attribution(model, TOKENS, n.vector(model, logits), n.bias(model, logits))
    assert close(parts.total(), n.measure(logits))
    for text, positions in PATHS.items():
        parallel = facts(model).parallel and text == "1.0 → MLP1"
        if not parallel and not ("MLP" in text and "mlp" in faults):
            check_path(model, n, text, positions, logits[0])
    check_patching(model, n)


def check_path(model, n: Observable, text: str, positions: list[int], logits) -> None:
    """A path's feature vector is the gradient by autograd; that of another head is not."""
    chain = path(model, text)
    run = reading(model, chain, TOKENS[0], positions)
    m = n.vector(model, logits)
    ours = run.score * path_feature(model, chain, m, norms=NormGradients(run.points))
    layers = [(component.layer, component.head) for component in chain]
    where = [position % 7 for position in positions]
    expected = gradient(model, layers, TOKENS[:1], where, {3: 1.0, 5: -1.0})
    assert expected.norm() > 0 and close(ours, expected), text
    wrong = [(layer, head if head is None else (head + 1) % 4) for layer, head in layers]
    if wrong != layers:
        assert not close(ours, gradient(model, wrong, TOKENS[:1], where, {3: 1.0, 5: -1.0}), 1e-3)


def check_patching(model, n: Observable) -> None:
    """One head's z is put in place, and what all other parts write is held."""
    effects = path_patching(model, TOKENS, OTHER, n)
    layers = range(model.cfg.n_layers)
    sites = [
        f"blocks.{layer}.{hook}" for layer in layers for hook in ("hook_attn_out", "hook_mlp_out")
    ]
    zs = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    clean, logits = read_activations(model, TOKENS, [*sites, *zs])
    corrupted, _ = read_activations(model, OTHER, zs)
    for layer, head in ((0, 1), (1, 2)):

        def put(z, hook, layer=layer, head=head):
            z = clean[zs[layer]].clone()
            z[:, :, head] = corrupted[zs[layer]][:, :, head]
            return z

        hooks = [(zs[layer], put)]
        for site in sites:
            if site != f"blocks.{layer}.hook_attn_out":
                hooks.append((site, lambda value, hook, site=site: clean[site].view_as(value)))
        with model.hooks(fwd_hooks=hooks):
            patched = n.measure(last_logits(model, TOKENS))
        # Norms in 32 bits round the logits, of which an effect is a small difference.
        before, error = n.measure(logits), effects[:, layer, head] - (n.measure(logits) - patched)
        assert error.norm() <= 1e-6 * logits.norm()
        assert not close(effects[:, layer, head - 1], before - patched, 1e-2)


@pytest.mark.slow
def test_an_intervention_is_right_whatever_the_self_check_says(model) -> None:
    """Steering against a hook of PyTorch on the block of the Hugging Face model."""
    vector = torch.linspace(-1, 1, model.cfg.d_model, dtype=torch.float64)
    ours = steer(model, TOKENS, 1, 4, vector[None])[0]

    def add(module, args, kwargs):
        x = (args[0] if args else kwargs["hidden_states"]).clone()
        x[:, 4] += vector
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    block = model.blocks[1].original_component
    handle = block.register_forward_pre_hook(add, with_kwargs=True)
    try:
        expected = model.original_model(input_ids=TOKENS, use_cache=False).logits[:, -1]
    finally:
        handle.remove()
    assert close(ours, expected) and not close(ours, last_logits(model, TOKENS), 1e-5)


@pytest.mark.slow
def test_a_run_that_is_resumed_or_shares_a_start_is_the_whole_run_or_is_refused(model) -> None:
    vector = torch.linspace(-1, 1, model.cfg.d_model, dtype=torch.float64)
    expected = last_logits(model, TOKENS)
    runs, rows = Runs.of(model, TOKENS, first=4), torch.arange(2)[None]
    assert close(runs.logits(model, lambda n, where: nullcontext(), rows)[0], expected)
    if "cache" in facts(model).faults or "ln_final.hook_in" not in model.hook_dict:
        with pytest.raises(ValueError, match="Interventions work|no hook 'ln_final"):
            Run.of(model, TOKENS)
        return
    run = Run.of(model, TOKENS)
    with edited(model, 1, 5, lambda x: x + vector):
        whole = read_activations(model, TOKENS, ["ln_final.hook_in"])[0]["ln_final.hook_in"]
    assert close(run.edited(model, 1, 5, lambda x: x + vector), whole[:, -1])
    assert not close(run.ends, whole[:, -1], 1e-4)


def test_what_needs_a_formula_that_does_not_hold_is_refused_by_its_name(model) -> None:
    n, faults = Observable.of(model, {"w3": 1, "w5": -1}), facts(model).faults
    for formula in faults:
        with pytest.raises(ValueError, match=f"{model.cfg.model_name}.*\\("):
            require(model, formula)
    if {"norms", "values", "attention", "stream", "logits"} & set(faults):
        m = torch.zeros(model.cfg.d_model, dtype=torch.float64)
        with pytest.raises(ValueError, match="Interventions work"):
            direct_attribution(model, TOKENS, m)
        with pytest.raises(ValueError, match="Interventions work"):
            path_patching(model, TOKENS, OTHER, n)


def test_multipliers_are_those_of_the_configuration_to_the_last_digit(tokenizer) -> None:
    granite, cohere = family("Granite", tokenizer), family("Cohere", tokenizer)
    config = granite.original_model.config
    assert facts(granite).scales == dict.fromkeys(("attn", "mlp"), config.residual_multiplier)
    assert facts(granite).logit_scale == 1 / config.logits_scaling != 1
    assert facts(cohere).logit_scale == cohere.original_model.config.logit_scale != 1


def bent(module, x):
    """A module's output and a little of its square."""
    out = type(module).forward(module, x)
    return out + 0.001 * out**2


DAMAGE = {
    "norms": "blocks.1.ln1",
    "attention": "blocks.1.attn.o",
    "logits": "unembed",
}


@pytest.mark.parametrize("formula", DAMAGE)
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Gemma 2", "OLMo 2", "Granite"])
@pytest.mark.slow
def test_a_module_that_does_something_else_is_noticed(tokenizer, name, formula) -> None:
    model = family(name, tokenizer)
    place = DAMAGE[formula]
    if name == "OLMo 2" and formula == "norms":
        place = "blocks.1.ln1_post"
    module = model.get_submodule(place).original_component
    module.forward = MethodType(bent, module)
    assert formula in check(model).faults


def rows_on_the_page() -> list[str]:
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines()[2:]


def test_the_models_page_says_of_a_family_what_it_gives(model, request) -> None:
    name = request.node.callspec.params["model"]
    assert row(name, model) in rows_on_the_page(), "run: python -m tests.models.families"


def test_the_table_on_the_models_page_has_every_family_once_and_in_order() -> None:
    rows = rows_on_the_page()
    assert [line.split(" | ")[0] for line in rows] == [f"| {name}" for name in FAMILIES]
    assert table(rows) in PAGE.read_text(), "run: python -m tests.models.families"

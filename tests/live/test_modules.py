"""The page's modules, each function by itself in a browser, against the book's own."""

from __future__ import annotations

import ast
import subprocess
import zlib
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from playwright.sync_api import Page

from helpers.activation_scaling.objective import Objective
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.pull_back import IgnoreNorms, NormWeights
from live.publish import publish
from tests.conftest import random_model

pytestmark = pytest.mark.site

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(browser, serve) -> Page:
    """An empty page that can import the modules."""
    opened = browser.new_page()
    opened.goto(f"{serve(ROOT / 'live')}/page/live.css")
    yield opened
    opened.close()


def call(page: Page, module: str, script: str, argument=None):
    """What a script returns, with a module as ``m`` and an argument as ``given``."""
    body = f"async (given) => {{ const m = await import('/page/{module}.js'); {script} }}"
    return page.evaluate(body, argument)


@pytest.mark.parametrize("kind", ["F32", "Q4_1", "Q8_0"])
def test_weights_are_those_of_python_to_the_bit(page: Page, kind: str) -> None:
    generator = np.random.default_rng(0)
    type_ = gguf.GGMLQuantizationType[kind]
    values = generator.normal(size=(6, 64)).astype(np.float32)
    # One block of zeros, and one whose scale is among the smallest numbers of 16 bits.
    values[1, :32], values[2, :32] = 0, values[2, :32] * 1e-6
    data = gguf.quantize(values, type_).view(np.uint8).reshape(-1)
    store = {
        "parts": [{"name": "p", "bytes": len(data), "crc32": zlib.crc32(data.tobytes())}],
        "files": {},
        "tensors": {"w": {"type": kind, "shape": [6, 64], "offset": 0, "bytes": len(data)}},
    }
    script = """const store = new m.Store(given.store); store.add(Uint8Array.from(given.data));
        return [[...store.rows("w")], [...store.rows("w", 2, 4)]];"""
    found, rows = call(page, "store", script, {"store": store, "data": data.tolist()})
    expected = gguf.dequantize(data, type_).view(np.float32).reshape(6, 64)
    assert np.array_equal(np.float32(found).reshape(6, 64), expected)
    assert np.array_equal(np.float32(rows).reshape(2, 64), expected[2:4])


def test_a_changed_byte_is_found_and_the_part_named(page: Page) -> None:
    part = {"name": "part-07", "bytes": 3, "crc32": zlib.crc32(b"abc")}
    script = """const store = new m.Store({parts: [given.part], files: {}, tensors: {}});
        try { store.add(Uint8Array.from(given.data)); } catch (e) { return e.message; }
        return "";"""
    assert call(page, "store", script, {"part": part, "data": list(b"abc")}) == ""
    assert "part-07" in call(page, "store", script, {"part": part, "data": list(b"abd")})
    assert "part-07" in call(page, "store", script, {"part": part, "data": list(b"ab")})


def test_probabilities_ranks_and_top_tokens(page: Page) -> None:
    logits = torch.randn(100, generator=torch.Generator().manual_seed(0)) * 5
    script = """const x = Float32Array.from(given);
        return {top: m.topK(x, 5), total: m.logSumExp(x), one: m.standing(x, 7)};"""
    found = call(page, "numbers", script, logits.tolist())
    assert found["top"] == logits.topk(5).indices.tolist()
    assert found["total"] == pytest.approx(logits.logsumexp(0).item(), abs=1e-5)
    assert found["one"]["probability"] == pytest.approx(logits.softmax(0)[7].item(), rel=1e-5)
    assert found["one"]["rank"] == 1 + int((logits > logits[7]).sum())


def test_initial_scalars_are_normal(page: Page) -> None:
    drawn = np.array(call(page, "numbers", "return [...m.normal(20000, 2, 3)];"))
    assert abs(drawn.mean()) < 0.06 and drawn.std() == pytest.approx(2, rel=0.03)
    assert (np.abs(drawn) > 4).mean() == pytest.approx(0.0455, abs=0.01)


@pytest.mark.parametrize("margin", [0.0, 3.0])
def test_the_objective_and_its_gradient_are_those_of_the_book(page: Page, margin: float) -> None:
    generator = torch.Generator().manual_seed(1)
    plus, minus, base = torch.randn(3, 1, 50, generator=generator, dtype=torch.float64)
    plus.requires_grad_(), minus.requires_grad_()
    answers = torch.tensor([4]), torch.tensor([9])
    terms = Objective(margin, 0.7, 0.0).terms(torch.zeros(1), plus, minus, base, *answers)
    terms["psi"].backward()
    rows = [one.detach()[0].tolist() for one in (plus, minus, base)]
    script = """const rows = given.rows.map((row) => Float64Array.from(row));
        const found = m.objective(...rows, [4, 9], {margin: given.margin, lambdaF: 0.7});
        return {...found, gradients: found.gradients.map((g) => [...g])};"""
    found = call(page, "fit", script, {"rows": rows, "margin": margin})
    assert found["effectiveness"] == pytest.approx(terms["E_m"].item(), abs=1e-9)
    assert found["faithfulness"] == pytest.approx(terms["F"].item(), abs=1e-9)
    assert found["gradients"][0] == pytest.approx(plus.grad[0].tolist(), abs=1e-6)
    assert found["gradients"][1] == pytest.approx(minus.grad[0].tolist(), abs=1e-6)


@pytest.mark.parametrize("norms", [False, True])
def test_feature_vectors_are_those_of_the_book(page: Page, tokenizer, norms: bool) -> None:
    model = random_model("HuggingFaceTB/SmolLM2-135M-Instruct", tokenizer)
    cfg = model.cfg
    weights = {"token_embd": model.W_U.mT, "output_norm": model.ln_final.weight}
    for layer in range(cfg.n_layers):
        attention = model.blocks[layer].attn
        weights[f"blk.{layer}.attn_v"] = attention.W_V.mT.flatten(0, 1)
        weights[f"blk.{layer}.attn_output"] = attention.W_O.flatten(0, 1).mT
        weights[f"blk.{layer}.attn_norm"] = model.blocks[layer].ln1.weight
    given = {name: value.tolist() for name, value in weights.items()}
    shape = {"n_layers": cfg.n_layers, "n_heads": cfg.n_heads, "d_head": cfg.d_head}
    shape |= {"d_model": cfg.d_model, "n_kv_heads": model.W_V.shape[1]}
    script = """const flat = (name) => Float64Array.from(given.weights[name.slice(0, -7)].flat());
        const rows = (name, from, to) => {
          const all = flat(name), d = given.shape.d_model;
          return from === undefined ? all : all.slice(from * d, to * d);
        };
        const model = {shape: given.shape, store: {rows}, weight: (name) => ({data: flat(name)})};
        const vector = m.observable(model, [3, 5], [8]);
        return m.headFeatures(model, vector, given.norms).map((one) => [...one]);"""
    found = call(page, "observables", script, {"weights": given, "shape": shape, "norms": norms})
    weights = {" w3": 0.5, " w5": 0.5, " w8": -1.0}
    m = Observable.of(model, weights).vector(model)
    how = NormWeights() if norms else IgnoreNorms()
    expected = head_features(model, m, norms=how).flatten(0, 1)
    torch.testing.assert_close(torch.tensor(found).to(expected), expected, rtol=1e-4, atol=1e-4)


def test_where_the_answers_change_places(page: Page) -> None:
    points = [{"beta": b, "logits": [b, 0.5]} for b in (-2, -1, 0, 1, 2)]
    assert call(page, "curve", "return m.crossings(given);", points) == [0.5]
    same = [{"beta": b, "logits": [1 + b * b, 0.5]} for b in (-1, 0, 1)]
    assert call(page, "curve", "return m.crossings(given);", same) == []


@pytest.mark.parametrize("text", ["plain", 'a "quote" \\n', "new\nline", "naïve 🙂", "\u2028 \t"])
def test_the_copied_python_has_the_prompt_and_the_scalars(page: Page, text: str) -> None:
    alpha = [0.0] * 12  # two layers, two sites, three positions
    alpha[7], alpha[10] = 0.25, -1.5
    state = {"text": text, "answers": [{"text": " a"}, {"text": ' "b'}], "beta": -0.5}
    script = """const values = Float32Array.from(given.alpha);
        return m.pythonOf({...given.state, alpha: {values, n: 3}});"""
    tree = ast.parse(call(page, "python", script, {"state": state, "alpha": alpha}))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "alpha":
            found = ast.literal_eval(node.value)
    assert found == {("attn_out", 1, 1): 0.25, ("mlp_out", 1, 1): -1.5}
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {text, " a", ' "b', 0.5} <= strings


def test_a_link_stands_on_the_site_only_where_the_page_is(tmp_path: Path) -> None:
    about = tmp_path / "live.html"
    about.write_text('<div id="live-link"><p>Run make live.</p></div>', encoding="utf-8")
    assert publish(tmp_path) is None
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "index.html").write_text('<a id="home" hidden href="x">', "utf-8")
    assert publish(tmp_path) == about and publish(tmp_path) == about
    assert about.read_text("utf-8").count('href="live/index.html"') == 1
    assert "hidden" not in (tmp_path / "live" / "index.html").read_text("utf-8")


def test_modules_are_linted() -> None:
    biome = ROOT / "_build" / "live" / "npm" / "node_modules" / ".bin" / "biome"
    if not biome.exists():
        pytest.skip("the linter is installed by make live")
    command = [biome, "lint", "--error-on-warnings", "page"]
    done = subprocess.run(command, cwd=ROOT / "live", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

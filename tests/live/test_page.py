"""The page that runs the model, in Chromium from disk and from a server, against Python.

Needs the page: ``make live`` builds it.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shutil
from pathlib import Path

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar, steered_logits
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.run import last_logits
from helpers.models.tokens import single_token, tokenize
from helpers.observable_propagation.edits import steer
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.pull_back import IgnoreNorms, NormWeights
from helpers.prompts.prompts import Prompts
from tests.conftest import BROWSERS, FLAGS
from tests.site.browsing import SCHEMES, Tab

LIVE = Path(__file__).parents[2] / "_build" / "html" / "live"
MISSING = not (LIVE / "index.html").is_file()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("live"),
    pytest.mark.skipif(MISSING, reason="there is no page that runs the model: run make live first"),
]

SITES = ("attn_out", "mlp_out")
PATIENCE = 300_000  # milliseconds; a busy machine is slow
CLOSE = 1e-3  # nats


@pytest.fixture(scope="module", params=SCHEMES)
def visit(request, browser, serve):
    """The page, ready, and what it asked for while it loaded."""
    root = LIVE.parent.as_uri() if request.param == "file" else serve(LIVE.parent)
    tab = Tab(browser, (root,))
    tab.page.set_default_timeout(PATIENCE)
    seen = tab.open(f"{root}/live/index.html", 390)
    expect(tab.page.locator("#curve svg")).to_be_visible(timeout=PATIENCE)
    yield tab.page, seen
    tab.page.context.close()


@pytest.fixture
def page(visit) -> Page:
    return visit[0]


def run_prompt(page: Page, text: str, correct: str, wrong: str) -> str:
    """Types a prompt and two answers, and runs it; what the page then says."""
    for name, value in (("prompt", text), ("correct", correct), ("wrong", wrong)):
        page.fill(f"#{name}", value)
    page.click("#run")
    expect(page.locator("#run")).to_be_enabled(timeout=PATIENCE)
    return page.inner_text("#status")


def call(page: Page, method: str, args):
    """A method of the page's worker; arrays of numbers come as lists."""
    script = """async ([method, args]) => {
        if (args.alpha) args.alpha = Float32Array.from(args.alpha);
        if (args.start) args.start = Float32Array.from(args.start);
        if (args.vector) args.vector = Float32Array.from(args.vector);
        const plain = (value) => ArrayBuffer.isView(value) ? [...value] : value;
        const steps = [];
        const onProgress = (step) => steps.push(step);
        const result = await live.call(method, args, {onProgress});
        const listed = Array.isArray(result) ? result.map(plain) : plain(result);
        return {result: listed, steps: steps.map(({psi}) => psi)};
    }"""
    return page.evaluate(script, [method, args])


def shown_logits(page: Page, table: str, column: int) -> list[float]:
    """The two answers' logits in a table of the page."""
    rows = page.locator(f"{table} table").first.locator("tbody tr")
    cells = [rows.nth(row).locator("td").nth(column).inner_text() for row in (0, 1)]
    return [float(cell.split(" ")[0]) for cell in cells]


def random_scalars(model, n: int, seed: int, std: float = 0.1) -> tuple[ActivScalar, list[float]]:
    """Scalars as the book has them, and as the page has them."""
    intervention = ActivScalar(Points.of(model, n, sites=SITES))
    intervention.reset(seed, std)
    alpha = torch.stack([intervention.theta[site].detach() for site in SITES], 1)
    return intervention, alpha.flatten().tolist()


def test_loads_all_it_asks_for_and_asks_no_other_host(visit) -> None:
    page, seen = visit
    assert not seen.outside and not seen.failed and not seen.console
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_finds_itself_to_be_the_book_s_model(page: Page) -> None:
    page.click("#check")
    result = page.locator("#check-result")
    expect(result).to_contain_text("in this browser", timeout=PATIENCE)
    assert "so the same" in result.inner_text()


@pytest.mark.parametrize(
    "prompt",
    [
        ("When Ruth met with Steven, Steven gave the book to", " Ruth", " Steven"),
        ("Привет, мир! 1234 🙂", " the", " a"),
        ("a\n\n  b", " c", "c"),
        ("<|im_start|>user\nHello", " I", "The"),
    ],
)
def test_a_typed_prompt_gives_python_s_logits(page: Page, smollm2, prompt) -> None:
    text, *answers = prompt
    assert run_prompt(page, *prompt).startswith("Ran")
    logits = last_logits(smollm2, tokenize(smollm2, [text]))[0]
    expected = [logits[single_token(smollm2, answer)].item() for answer in answers]
    assert shown_logits(page, "#base", 0) == pytest.approx(expected, abs=2 * CLOSE)
    best = smollm2.tokenizer.decode([int(logits.argmax())]).replace(" ", "␣").replace("\n", "⏎")
    first = page.locator("#base table").nth(1).locator("tbody td").first
    assert first.inner_text().rsplit(" ", 2)[0] == best


def test_an_answer_of_several_tokens_shows_its_pieces(page: Page) -> None:
    said = run_prompt(page, "Hello", " Tegucigalpa", " Paris")
    assert "tokens (" in said and "␣" in said and " · " in said
    assert "no tokens" in run_prompt(page, "", " Rome", " Paris")
    assert "same token" in run_prompt(page, "Hello", " Paris", " Paris")
    assert "at most 128" in run_prompt(page, "word " * 200, " a", " b")


def test_cells_set_with_the_keys_and_the_copied_python_agree(page: Page) -> None:
    run_prompt(page, "When Ben met with Joe, Joe gave the book to", " Ben", " Joe")
    page.click("#reset")
    cell = page.locator("#map-1 td[data-row='20'][data-column='7']")
    cell.click()  # paints 0.5
    for key in ("ArrowUp", "ArrowUp", "Enter", "-", "-", "ArrowLeft", "+"):
        page.keyboard.press(key)
    label = page.locator("#map-1 td:focus").get_attribute("aria-label")
    assert "layer 22, position 6" in label and "+0.10" in label
    page.fill("#beta", "-1.5")
    head = page.locator("#scaled thead th").nth(2)
    expect(head).to_have_text("β = −1.5", timeout=PATIENCE)
    page.wait_for_function("document.querySelector('#curve').ariaBusy !== 'true'")
    page.evaluate("live.call('words', [])")  # after all that waited
    page.click("#copy")
    code = page.inner_text("#python")
    assert code.count('("mlp_out",') == 3
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    expected = [float(line.split()[-1]) for line in said.getvalue().splitlines()]
    assert shown_logits(page, "#scaled", 1) == pytest.approx(expected, abs=2 * CLOSE)
    assert shown_logits(page, "#scaled", 0) != pytest.approx(expected, abs=2 * CLOSE)
    # Undo takes back one change after the other: the last one, 0.1 at this cell, first.
    last = page.locator("#map-1 td[data-row='22'][data-column='6']")
    page.click("#undo")
    expect(last).to_have_attribute("aria-label", re.compile(r"\+0\.00"))
    expect(cell).to_have_attribute("aria-label", re.compile(r"\+0\.50"))


def test_scaled_logits_are_those_of_the_book(page: Page, smollm2) -> None:
    tokens = tokenize(smollm2, ["The capital of Chile is Canberra. Q: What is the capital"])
    intervention, alpha = random_scalars(smollm2, tokens.shape[1], seed=1)
    betas = [-2.0, 0.0, 1.0]
    request = {"ids": tokens[0].tolist(), "alpha": alpha, "betas": betas}
    found = torch.tensor(call(page, "logits", request)["result"])
    with torch.no_grad():
        expected = steered_logits(smollm2, tokens, intervention, betas)[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE)


def test_a_fit_makes_the_book_s_steps(page: Page, smollm2) -> None:
    text = "When Ben met with Joe, Joe gave the book to"
    prompt = Prompts.of(smollm2, [text], [" Ben"], [" Joe"])
    points = Points.of(smollm2, prompt.tokens.shape[1], sites=SITES)
    intervention = ActivScalar(points)
    intervention.reset(seed=3)
    start = torch.stack([intervention.theta[site].detach() for site in SITES], 1)
    options = {"margin": 1, "lambdaF": 1, "lambdaM": 1, "learningRate": 0.01, "epochs": 4}
    answers = [single_token(smollm2, answer) for answer in (" Ben", " Joe")]
    request = {"ids": prompt.tokens[0].tolist(), "answers": answers, "options": options}
    request["start"] = start.flatten().tolist()
    found = call(page, "fit", request)
    fitted = fit(
        smollm2, intervention, prompt, Objective(1.0, 1.0, 1.0), learning_rate=0.01, epochs=4,
        seed=3,
    )  # fmt: skip
    assert found["steps"] == pytest.approx([row["psi"] for row in fitted.history], abs=0.02)
    theta = torch.stack([intervention.theta[site].detach() for site in SITES], 1).flatten()
    # Adam's first steps depend on signs alone, which rounding decides where a gradient is near 0.
    same = (torch.tensor(found["result"]) - theta).abs() < 2e-3
    assert same.float().mean() > 0.95


def test_a_fit_can_be_stopped_and_then_steers(page: Page) -> None:
    run_prompt(page, "When Ben met with Joe, Joe gave the book to", " Ben", " Joe")
    page.fill("#epochs", "400")
    page.click("#fit")
    expect(page.locator("#fit-state")).to_contain_text("Step 3 of 400", timeout=PATIENCE)
    page.click("#stop")
    expect(page.locator("#status")).to_contain_text("Learned", timeout=PATIENCE)
    page.fill("#epochs", "25")
    assert page.locator("#fit").is_enabled()


def test_the_lens_ends_in_the_model_s_own_distribution(page: Page, smollm2) -> None:
    tokens = tokenize(smollm2, ["The capital of France is"])
    ids, n_layers = tokens[0].tolist(), smollm2.cfg.n_layers
    answers = [single_token(smollm2, " Paris"), single_token(smollm2, " Rome")]
    alpha = [0.0] * (2 * n_layers * len(ids))
    request = {"ids": ids, "alpha": alpha, "beta": 1, "answers": answers}
    cells = call(page, "lens", request)["result"]
    with torch.no_grad():
        _, cache = smollm2.run_with_cache(tokens)
        streams = [cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(n_layers)]
        streams = torch.cat([*streams, cache[f"blocks.{n_layers - 1}.hook_resid_post"]])
        chances = (smollm2.ln_final(streams) @ smollm2.W_U).softmax(-1).flatten(0, 1)
    assert len(cells) == len(chances)
    found = torch.tensor([cell["answers"] for cell in cells])
    torch.testing.assert_close(found, chances[:, answers], rtol=1e-2, atol=1e-4)
    best = torch.tensor([cell["probability"] for cell in cells])
    torch.testing.assert_close(best, chances.max(-1).values, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("norms", [False, True])
def test_lengths_of_feature_vectors_are_those_of_the_book(page: Page, smollm2, norms) -> None:
    ids = {sign: single_token(smollm2, text) for sign, text in (("plus", " she"), ("minus", " he"))}
    request = {"plus": [ids["plus"]], "minus": [ids["minus"]], "norms": norms}
    found = torch.tensor(call(page, "features", request)["result"]["lengths"])
    m = Observable.of(smollm2, {" she": 1.0, " he": -1.0}).vector(smollm2)
    how = NormWeights() if norms else IgnoreNorms()
    expected = head_features(smollm2, m, norms=how).norm(dim=-1).flatten()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_an_added_vector_gives_the_book_s_logits(page: Page, smollm2) -> None:
    tokens = tokenize(smollm2, ["The nurse went home early because"])
    v = torch.randn(smollm2.cfg.d_model, generator=torch.Generator().manual_seed(0))
    edit = {"layer": 12, "position": 2, "vector": v.tolist(), "strengths": [0, 5, -5]}
    alpha = [0.0] * (2 * smollm2.cfg.n_layers * tokens.shape[1])
    request = {"ids": tokens[0].tolist(), "alpha": alpha, "betas": [0, 0, 0], "edit": edit}
    found = torch.tensor(call(page, "logits", request)["result"])
    expected = steer(smollm2, tokens, 12, 2, torch.stack([0 * v, 5 * v, -5 * v]))[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE)


def test_observables_in_the_page(page: Page) -> None:
    run_prompt(page, "The nurse went home early because", " she", " he")
    page.fill("#plus", "she, her")
    page.fill("#minus", "antidisestablishmentarianism")
    page.click("#features")
    expect(page.locator("#status")).to_contain_text("not one token", timeout=PATIENCE)
    page.fill("#minus", "he, him")
    page.click("#features")
    expect(page.locator("#head table")).to_be_visible(timeout=PATIENCE)
    page.click("#add")
    expect(page.locator("#added table").first).to_be_visible(timeout=PATIENCE)
    assert shown_logits(page, "#added", 0) == pytest.approx(shown_logits(page, "#base", 0))
    assert shown_logits(page, "#added", 1) != pytest.approx(shown_logits(page, "#base", 0))


def strings(n: int) -> list[str]:
    """Texts of words, digits, code, many scripts, marks and spaces, by chance."""
    draw = random.Random(0)
    words = "the Paris 3.14 naïve 北京 привет don't I'll x=[1,2] https://a.b __init__ 🙂 ﬁ".split()
    spaces = [" ", "  ", "\n", "\t", "", "\u00a0", ", ", "\r\n", "   "]
    scripts = [range(32, 127), range(160, 600), range(0x400, 0x500), range(0x600, 0x700)]
    scripts += [range(0x3040, 0x3100), range(0x4E00, 0x5000), range(0x1F600, 0x1F650)]
    made = []
    for _ in range(n):
        parts = []
        for _ in range(draw.randint(1, 12)):
            word = draw.choice(words)
            if draw.random() < 0.3:
                script = draw.choice(scripts)
                word = "".join(chr(draw.choice(script)) for _ in range(draw.randint(1, 6)))
            parts += [word, draw.choice(spaces)]
        made.append("".join(parts))
    return made


def test_the_tokenizer_is_python_s_on_ten_thousand_strings(page: Page, smollm2) -> None:
    texts = strings(10_000)
    script = "async (texts) => (await live.call('words', texts)).map(({ids}) => ids)"
    found = page.evaluate(script, texts)
    encoded = smollm2.tokenizer(texts, add_special_tokens=False)["input_ids"]
    wrong = [text for text, one, other in zip(texts, found, encoded) if one != other]
    assert not wrong, f"{len(wrong)} differ, for example {wrong[0]!r}"


def test_the_page_is_accessible(page: Page) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_part_is_named(browser, serve, tmp_path: Path, scheme: str, damage: str) -> None:
    copy = tmp_path / "live"
    shutil.copytree(LIVE, copy, copy_function=os.symlink)
    part = copy / "data" / f"part-02.{'js' if scheme == 'file' else 'bin'}"
    data = bytearray(part.read_bytes())
    part.unlink()
    if damage == "altered":
        data[len(data) // 2] ^= 1  # in base64 too, another byte
        part.write_bytes(data)
    page = browser.new_page()
    page.goto(f"{copy.as_uri() if scheme == 'file' else serve(copy)}/index.html")
    expect(page.locator("#status")).to_contain_text("part-02", timeout=PATIENCE)
    assert re.search("make live", page.inner_text("#status"))
    assert page.locator("#run").is_disabled()
    page.close()


def loaded(page: Page) -> None:
    expect(page.locator("#run")).to_be_enabled(timeout=PATIENCE)


def test_a_load_that_is_broken_off_goes_on_and_the_next_visit_loads_nothing(browser, serve) -> None:
    with browser.new_context() as context:
        address, asked = f"{serve(LIVE.parent)}/live/index.html", []
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.goto(address)
        page.wait_for_function("document.querySelector('#load-progress').value > 0.3")
        page.close()
        first = {url for url in asked if ".bin" in url}
        asked.clear()
        page = context.new_page()
        page.goto(address)
        expect(page.locator("#status")).to_contain_text("out of this browser's storage")
        loaded(page)
        again = [url for url in asked if ".bin" in url]
        parts = len(list((LIVE / "data").glob("*.bin")))
        # At most the part under way comes twice.
        assert 0 < len(again) < parts and len(first & set(again)) <= 1
        assert len(first | set(again)) == parts
        # A part that was altered in the storage is named, and comes from the server the next time.
        page.evaluate(
            """async () => {
                const store = await caches.open("steering-book-live");
                const key = (await store.keys()).find(({url}) => url.includes("part-03"));
                const bytes = new Uint8Array(await (await store.match(key)).arrayBuffer());
                bytes[1000] ^= 1;
                await store.put(key, new Response(bytes));
                await store.put("data/part-00.bin?older", new Response("of another build"));
            }"""
        )
        page.reload()
        expect(page.locator("#status")).to_contain_text("part-03", timeout=PATIENCE)
        asked.clear()
        page.reload()
        loaded(page)
        (mended,) = [url for url in asked if ".bin" in url]
        assert "part-03" in mended
        stored = page.evaluate(
            "async () => (await (await caches.open('steering-book-live')).keys()).length"
        )
        assert stored == parts


def test_where_there_is_no_graphics_processor_the_page_says_so_and_goes_on(page: Page) -> None:
    assert page.locator("#processor-row").is_hidden()
    page.evaluate(
        """() => { const chosen = document.querySelector("#processor");
            chosen.value = "webgpu"; chosen.dispatchEvent(new Event("change")); }"""
    )
    expect(page.locator("#check-result")).to_contain_text("is not used", timeout=PATIENCE)
    assert page.locator("#processor").input_value() == "wasm"
    said = run_prompt(page, "When Ben met with Joe, Joe gave the book to", " Ben", " Joe")
    assert said.startswith("Ran")


def test_a_processor_that_does_not_give_the_book_s_logits_is_not_used(page: Page) -> None:
    page.evaluate("LIVE.check.cases[0].logits[0] += 1")
    page.evaluate("document.querySelector('#processor').dispatchEvent(new Event('change'))")
    result = page.locator("#check-result")
    expect(result).to_contain_text("is not used", timeout=PATIENCE)
    assert "so NOT the same" in result.inner_text()
    page.evaluate("LIVE.check.cases[0].logits[0] -= 1")


LAYER = """async ([n_pos, shapes]) => {
    const ort = await import("/ort.webgpu.bundle.min.mjs");
    Object.assign(ort.env.wasm, {numThreads: 1, wasmPaths: "/"});
    let seed = 1;
    // About as large as the model's weights: larger ones make attention jump by rounding.
    const draw = () => 0.1 * ((seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5);
    const made = (dims) => {
        const size = dims.reduce((a, b) => a * b);
        return new ort.Tensor("float32", Float32Array.from({length: size}, draw), dims);
    };
    const feeds = Object.fromEntries(shapes.map(([name, dims]) => [name, made(dims)]));
    const outputs = [];
    for (const processor of ["wasm", "webgpu"]) {
        const options = {executionProviders: [processor], logSeverityLevel: 3};
        const session = await ort.InferenceSession.create("/layer.onnx", options);
        const result = await session.run(feeds);
        outputs.push([...result[session.outputNames[0]].data]);
    }
    return outputs;
}"""


def test_a_layer_by_webgpu_is_that_by_webassembly(browser, serve, tmp_path: Path) -> None:
    """In software, which is too slow for a whole run."""
    work = LIVE.parents[1] / "live"
    runtime = work / "npm" / "node_modules" / "onnxruntime-web" / "dist"
    computing = "ort-wasm-simd-threaded.asyncify"
    for name in ("ort.webgpu.bundle.min.mjs", f"{computing}.mjs", f"{computing}.wasm"):
        (tmp_path / name).symlink_to(runtime / name)
    graphs = max(work.glob("graphs-*"), key=lambda folder: folder.stat().st_mtime)
    (tmp_path / "layer.onnx").symlink_to(graphs / "layer.onnx")
    (tmp_path / "index.html").write_text("")
    flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
    flags += ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
    program = next(path for name in BROWSERS if (path := shutil.which(name)))
    n_pos, d, kv, mlp = 2, 576, 192, 1536
    shapes = {"x": (1, n_pos, d), "alpha": (1, 2, n_pos), "attn_norm": (d,), "attn_q": (d, d)}
    shapes |= {"attn_k": (kv, d), "attn_v": (kv, d), "attn_output": (d, d), "ffn_norm": (d,)}
    shapes |= {"ffn_gate": (mlp, d), "ffn_up": (mlp, d), "ffn_down": (d, mlp)}
    other = browser.browser_type.launch(executable_path=program, args=flags)
    try:
        page = other.new_page()
        page.goto(f"{serve(tmp_path)}/index.html")
        if not page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this browser has no WebGPU, not even in software")
        plain, graphics = torch.tensor(page.evaluate(LAYER, [n_pos, list(shapes.items())]))
    finally:
        other.close()
    assert 0 < (graphics - plain).abs().max() < 1e-5 * plain.abs().max()


def test_the_keyboard_alone_reaches_every_control_and_a_map_by_one_stop(page: Page) -> None:
    run_prompt(page, "When Ben met with Joe, Joe gave the book to", " Ben", " Joe")
    expect(page.locator("#curve svg")).to_be_visible()
    controls = page.locator(":is(input, select, textarea, button):visible:enabled")
    ids = set(controls.evaluate_all("all => all.map(({id, dataset}) => id || dataset.example)"))
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.keyboard.press("Control+Home")
    seen, cells = set(), set()
    for _ in range(len(ids) + 20):  # round the page, from wherever it was
        page.keyboard.press("Tab")
        name, cell = page.evaluate(
            """(({id, dataset, parentElement, cellIndex}) =>
                [id || dataset.example, cellIndex && parentElement.rowIndex + "," + cellIndex])
                (document.activeElement)"""
        )
        seen.add(name)
        if cell is not None:
            cells.add((cell, page.evaluate("document.activeElement.closest('[id*=map]').id")))
    assert ids <= seen, ids - seen
    maps = {name for _, name in cells}  # those that tests before this one made among them
    assert {"map-0", "map-1"} <= maps and len(cells) == len(maps), cells

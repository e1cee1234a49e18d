"""``make live``: build the page that runs the embedded model, and put it into the site.

What the page consists of: the graphs (``graph.py``), the weights (``weights.py``), the tokenizer,
and a runtime and a tokenizer library from npm, bundled with the page's own modules (``page/``).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.load import describe, load_model
from helpers.models.packed import packed_model
from helpers.prompts.tasks import make_task
from live.check import SITES, Case, Runner, cases, differences, gradient_difference, prompts
from live.graph import Shape, export
from live.pack import Pack
from live.publish import publish
from live.weights import download, read

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
WORK = ROOT / "_build" / "live"
# What the runtime computes with, on the processor and on a graphics processor.
RUNTIMES = {
    "runtime-wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "runtime-webgpu": "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm",
}
EXTRA = ("onnx", "onnxruntime", "onnxscript")
SEED = 0
# As in the chapter "One prompt, a few scalars".
EPOCHS, LEARNING_RATE, OBJECTIVE = 25, 1e-2, Objective(margin=1.0, lambda_f=1.0, lambda_m=1.0)


def npm_packages(into: Path) -> Path:
    """Install the pinned npm packages; the folder ``node_modules``.

    Raises:
        RuntimeError: there is no npm, or it fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            "make live needs npm, which comes with Node.js (20 or newer), to fetch the program "
            "that runs the model in a browser. Install Node.js and run make live again."
        )
    into.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, into)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    result = subprocess.run(command, cwd=into, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"npm could not install the pinned packages:\n{result.stderr.strip()}")
    return into / "node_modules"


def bundle(modules: Path, into: Path) -> None:
    """Bundle the page's modules into ``live.js``, with the worker inside, and copy the rest.

    Raises:
        RuntimeError: a module cannot be bundled.
    """
    sources = modules.parent / "page"  # beside node_modules, where imports are looked up
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(HERE / "page", sources)
    # The worker first: the page has it as text, since a page on disk cannot load it as a file.
    for name, out in (("worker", sources / "worker.bundle.js"), ("main", into / "live.js")):
        command = [modules / ".bin" / "esbuild", sources / f"{name}.js", "--bundle", "--minify"]
        command += ["--format=iife", "--log-level=warning", f"--outfile={out}"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode or result.stderr.strip():
            raise RuntimeError(f"the page's {name}.js cannot be bundled:\n{result.stderr}")
    for name in ("index.html", "live.css"):
        shutil.copy(HERE / "page" / name, into)


def graphs_of(shape: Shape) -> dict[str, bytes]:
    """The graphs, exported anew if their code or a version has changed."""
    digest = hashlib.sha256((HERE / "graph.py").read_bytes() + repr(shape).encode())
    for package in ("torch", *EXTRA):
        digest.update(importlib.metadata.version(package).encode())
    folder = WORK / f"graphs-{digest.hexdigest()[:12]}"
    if not folder.is_dir():
        print("Exporting the model's graphs ...", flush=True)
        made = export(shape)
        with tempfile.TemporaryDirectory(dir=WORK) as name:
            for graph, data in made.items():
                (Path(name) / f"{graph}.onnx").write_bytes(data)
            shutil.copytree(name, folder)
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.onnx"))}


def fitted_maps(model: TransformerBridge) -> list[dict]:
    """Scalars learned on a prompt of each task of the paper, with the chapter's settings."""
    maps = []
    for name in ("IOI", "CCC"):
        prompt = make_task(model, name, n_train=12, n_test=12, seed=SEED).train.at([0])
        intervention = ActivScalar(Points.of(model, prompt.tokens.shape[1], sites=SITES))
        fit(
            model, intervention, prompt, OBJECTIVE, learning_rate=LEARNING_RATE, epochs=EPOCHS,
            seed=SEED,
        )  # fmt: skip
        alpha = torch.stack([intervention.theta[site] for site in SITES], dim=1).detach()
        maps.append(
            {
                "name": name,
                "text": prompt.texts[0],
                "answers": [prompt.correct_texts[0], prompt.wrong_texts[0]],
                "alpha": rounded(alpha),
            }
        )
    return maps


def rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.flatten().tolist()]


def page_cases(made: list[Case], n_tokens: int = 200) -> list[dict]:
    """What the page compares itself with: logits of some tokens, spread over the vocabulary."""
    chosen = []
    for case in made:
        ids = torch.arange(0, len(case.logits), len(case.logits) // n_tokens)
        chosen.append(
            {
                "text": case.text,
                "alpha": rounded(case.alpha),
                "ids": ids.tolist(),
                "logits": rounded(case.logits[ids]),
            }
        )
    return chosen


def build(site: Path) -> Path:
    """Build the page into ``site/live``; the page's path.

    Raises:
        RuntimeError: npm, the wheel or a module fails.
        ArithmeticError: the graphs are not the book's model.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    # What can be refused at once comes first.
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise RuntimeError(
            f"{', '.join(missing)} is not installed. Install the extra with "
            "pip install -c constraints.txt -e '.[live]' and run make live again."
        )
    modules = npm_packages(WORK / "npm")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="making-") as name:
        made = Path(name) / "live"
        made.mkdir()
        bundle(modules, made)
        # The model, and its check against the book's.
        shape, tensors = read(download(Path(name)))
        graphs = graphs_of(shape)
        model = load_model("smollm2", device="cpu")
        print("Checking the graphs against the book's model ...", flush=True)
        texts = prompts(model)
        checked = cases(model, texts)
        runner = Runner(shape, tensors, graphs)
        found = differences(model, runner, checked)
        print(f"  {len(texts)} prompts: at most {max(found[::2]):.1e} nats apart at α = 0,")
        share = gradient_difference(model, runner, checked[1])
        print(
            f"  and {max(found[1::2]):.1e} with random scalars; gradients {share:.1e}", flush=True
        )
        print("Learning the scalars of the paper's two tasks ...", flush=True)
        facts = {
            "model": describe(model),
            "shape": asdict(shape),
            "bos": model.tokenizer.bos_token_id,
            "check": {
                "prompts": len(texts),
                "plain": max(found[::2]),
                "scaled": max(found[1::2]),
                "cases": page_cases(checked[:2] + checked[-2:]),
            },
            "maps": fitted_maps(model),
        }
        # Its data.
        pack = Pack()
        for runtime, file in RUNTIMES.items():
            pack.add_file(runtime, (modules / file).read_bytes())
        for file in ("tokenizer.json", "tokenizer_config.json"):
            pack.add_file(file, (packed_model("smollm2") / file).read_bytes())
        for graph, data in graphs.items():
            pack.add_file(graph, data)
        for tensor, blocks in tensors.items():
            pack.add_tensor(tensor, blocks)
        pack.write(made / "data", facts)
        site.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(site / "live", ignore_errors=True)
        made.rename(site / "live")
    publish(site)
    return site / "live" / "index.html"


if __name__ == "__main__":
    try:
        print(f"\nThe page that runs the model is ready: {build(ROOT / '_build' / 'html')}")
    except (RuntimeError, ArithmeticError) as error:
        sys.exit(f"make live: {error}")

"""What a result depends on: a change that could alter it counts, and no other change does."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import types
from fractions import Fraction
from pathlib import Path
from threading import Lock

import cloudpickle
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from helpers.activation_scaling import grid
from helpers.runs.code import ROOT, files_of, is_own
from helpers.runs.digest import digest_of
from helpers.settings import Settings
from tests.conftest import random_model

pytestmark = pytest.mark.unit

# Files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two packages, a notebook's folder and recorded tables."""
    files = {
        "helpers/__init__.py": "",
        "helpers/near.py": "from . import deep\nfrom .sub.inner import f\n",
        "helpers/deep.py": "DEPTH = 1\n",
        "helpers/other.py": '"""Like helpers.deep and book/results."""\n',
        "helpers/sub/__init__.py": "from .more import *\n",
        "helpers/sub/inner.py": "def f():\n    from benchmarks import speed\n",
        "helpers/sub/more.py": "from ..late import x\n",
        "helpers/sub/figure.js": "",
        "helpers/sub/data/words.csv": "",
        "helpers/late.py": "",
        "benchmarks/__init__.py": "",
        "benchmarks/speed.py": "",
        "benchmarks/slow.py": "import beside",
        "book/_ext/build.py": "",
        "book/chapters/beside.py": "import second",
        "book/chapters/second.py": "",
        "book/chapters/table.csv": "",
        "book/chapters/tables/first.csv": "",
        "book/results/grid-a.csv": "",
        "book/results/grid-b.csv": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


NEAR = "helpers/__init__ helpers/near helpers/deep helpers/sub/__init__ helpers/sub/inner \
    helpers/sub/more helpers/late benchmarks/__init__ benchmarks/speed helpers/sub/figure.js \
    helpers/sub/data/words.csv"
BESIDE = "book/chapters/beside book/chapters/second"


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("import os, numpy", ""),
        ("import helpers.near", NEAR),
        ("from helpers import near", NEAR),
        ("def f():\n    from helpers.near import g", NEAR),
        ("import helpers.other as o", "helpers/__init__ helpers/other"),
        ("from benchmarks import *", "benchmarks/__init__ benchmarks/speed benchmarks/slow"),
        ("from book._ext.build import main", "book/_ext/build"),
        ("import beside", BESIDE),
        ("importlib.import_module('beside')", BESIDE),
        ("importlib.import_module('helpers.deep')", "helpers/__init__ helpers/deep"),
        ("!python -m benchmarks.speed --fast", "benchmarks/__init__ benchmarks/speed"),
        ("%run second.py", "book/chapters/second"),
        ("pd.read_csv('table.csv')", "book/chapters/table.csv"),
        ("read(ROOT / 'book/results/grid-a.csv')", "book/results/grid-a.csv"),
        ("Path('..') / 'results' / name", "book/results/grid-a.csv book/results/grid-b.csv"),
        ("Path('grid-a.csv')", "book/results/grid-a.csv"),
        ("x = '../results'", "book/results/grid-a.csv book/results/grid-b.csv"),
        ("Path('tables').glob('*')", "book/chapters/tables/first.csv"),
        ("f'../results/grid-{model}.csv'", "book/results/grid-a.csv book/results/grid-b.csv"),
        ("FOLDER / f'{task}-b.csv'", "book/results/grid-b.csv"),
        ("'..', '.', '/', 'book', '*', 'and so on.', f'{x}.{y}', f'{x}.csv2'", ""),
        ("this is no Python", ""),
        (r"half = '\ud800'", ""),  # a string that no file can be named
        (f"long = {'ü' * 150!r}", ""),
    ],
)
def test_source_is_followed_to_every_file_that_it_reaches(root: Path, source: str, reached: str):
    code = TransformerManager().transform_cell(source)
    found = files_of([(code, root / "book/chapters")], root)
    expected = {name if Path(name).suffix else f"{name}.py" for name in reached.split()}
    assert {path.relative_to(root).as_posix() for path in found} == expected


def test_the_grid_reaches_its_helpers_and_their_data_but_no_installed_package():
    found = files_of([("from helpers.activation_scaling.grid import run", ROOT / "book")])
    names = {path.relative_to(ROOT).as_posix() for path in found}
    reached = "helpers/models/load.py helpers/settings.py helpers/prompts/data/names.csv"
    assert names > set(reached.split())
    assert not [name for name in names if name.startswith((".venv", "helpers/figures", "book"))]


def test_packages_that_are_installed_in_a_folder_of_their_own_are_not_followed(
    tmp_path: Path, monkeypatch
):
    module = tmp_path / "library.py"
    module.touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert is_own(module)
    (tmp_path / "library-1.0.dist-info").mkdir()  # as pip install --target leaves it
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert not is_own(module) and is_own(ROOT / "helpers" / "settings.py")


# Functions that were typed


def typed(code: str, **names) -> types.FunctionType:
    """The function ``f`` of some code that is in no file, as in a notebook."""
    space = {"__name__": "__main__", **names}
    exec(compile(code, "<typed>", "exec"), space)
    return space["f"]


TYPED = {
    "a constant beside it": "FACTOR = {}\ndef f(x): return FACTOR * x",
    "its own text": "def f(x): return {} * x",
    "a default": "def f(x, factor={}): return factor * x",
    "a keyword": "def f(x, *, factor={}): return factor * x",
    "a variable of a closure": "def make(a):\n  def f(x): return a * x\n  return f\nf = make({})",
    "a function that it calls": "def g(x): return {} * x\ndef f(x): return g(x)",
    "a function that it calls through another": (
        "def h(x): return {} * x\ndef g(x): return h(x)\ndef f(x): return g(x)"
    ),
    "a lambda": "g = lambda x: {} * x\nf = lambda x: g(x)",
    "an attribute of a class": "class A:\n  factor = {}\ndef f(x): return A.factor * x",
    "a method": "class A:\n  def g(self): return {}\ndef f(x): return A().g() * x",
    "a property": "class A:\n  @property\n  def g(self): return {}\ndef f(x): return A().g * x",
    "a base class": "class A:\n  b = {}\nclass B(A): pass\ndef f(x): return B.b * x",
    "an instance": (
        "class A:\n  def __init__(self, b): self.b = b\na = A({})\ndef f(x): return a.b * x"
    ),
    "a list in a dict": "D = dict(a=[{}])\ndef f(x): return D['a'][0] * x",
    "an element of a set": "S = set([7, {}])\ndef f(x): return max(S) * x",
    "what it decorates": (
        "import functools\ndef twice(g):\n  @functools.wraps(g)\n  def h(x): return 2 * g(x)\n"
        "  return h\n@twice\ndef f(x): return {} * x"
    ),
    "its decorator": (
        "import functools\ndef times(g):\n  @functools.wraps(g)\n  def h(x): return {} * g(x)\n"
        "  return h\n@times\ndef f(x): return x"
    ),
    "a partial": "import functools\ndef g(a, x): return a * x\nf = functools.partial(g, {})",
    "a bound method": (
        "class A:\n  def __init__(self, b): self.b = b\n  def g(self, x): return self.b * x\n"
        "f = A({}).g"
    ),
    "an attribute of a function": "def g(): pass\ng.a = {}\ndef f(x): return g.a * x",
    "functions that call each other": (
        "def g(x): return f(x - 1) if x else {}\ndef f(x): return g(x - 1) if x else 1"
    ),
    "a comprehension inside": "A = {}\ndef f(x): return [A * x for _ in range(3)]",
    "an array": "import numpy as np\na = np.arange({})\ndef f(x): return a * x",
    "a tensor": "import torch\na = torch.arange({})\ndef f(x): return a * x",
    "a module's weights": (
        "import torch\ntorch.manual_seed({})\nlayer = torch.nn.Linear(2, 2)\n"
        "def f(x): return layer(x)"
    ),
    "a table": "import pandas as pd\nt = pd.DataFrame(dict(a=[{}], b=['x']))\ndef f(x): return t",
    "a dataclass": (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n  b: int = {}\n"
        "def f(x): return A().b * x"
    ),
    "an enumeration": (
        "import enum\nclass E(enum.Enum):\n  A = {}\ndef f(x): return E.A.value * x"
    ),
}


@pytest.mark.parametrize("code", TYPED.values(), ids=TYPED)
def test_what_a_typed_function_reaches_counts_by_value(code: str):
    before, again, after = (typed(code.replace("{}", value)) for value in ("3", "3", "4"))
    assert digest_of(before) == digest_of(again) != digest_of(after)
    # Another process gets the same function.
    assert digest_of(cloudpickle.loads(cloudpickle.dumps(before))) == digest_of(before)


def test_what_a_cached_function_wraps_counts():
    code = "import functools\n@functools.cache\ndef f(x): return {} * x"
    assert digest_of(typed(code.replace("{}", "3"))) != digest_of(typed(code.replace("{}", "4")))


def test_what_a_typed_function_does_not_reach_does_not_count():
    code = "A, B = 1, {}\nclass C: lock = B\ndef g(): return B\ndef f(x): return A * x.B"
    assert digest_of(typed(code.replace("{}", "3"))) == digest_of(typed(code.replace("{}", "4")))


@pytest.mark.slow
def test_a_digest_is_the_same_in_every_process():
    """Whatever the environment, and the order in which sets are stored."""
    code = "from helpers.runs.workers import parallel_map as found; "
    code += "from helpers.runs.digest import digest_of; print(digest_of(found), digest_of(F))"
    typed_set = "F = lambda x: x in {'a', 'b', 'ccc'}; "
    said = set()
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed, "NOTE": seed}
        command = [sys.executable, "-c", typed_set + code]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
        said.add(done.stdout)
    assert len(said) == 1 and len(said.pop().split()) == 2


def test_a_digest_does_not_change_by_calls_or_pickling():
    code = "class A:\n  b = 2\ndef g(x): return x ** A().b\ndef f(x): return g(x)"
    f = typed(code)
    before = digest_of(f)
    for _ in range(99):
        f(2.0)
    cloudpickle.dumps([f, f.__globals__["A"]()])
    assert digest_of(f) == before


def test_one_is_neither_true_nor_one_half_twice():
    values = ["1", "1.0", "True", "'1'", "[1]", "(1,)", "0.0", "-0.0", "None"]
    digests = {digest_of(typed(f"A = {value}\ndef f(x): return A")) for value in values}
    assert len(digests) == len(values)


@pytest.mark.parametrize("value", ["threading.Lock()", "open('/dev/null')", "(x for x in '')"])
def test_a_value_without_a_digest_is_refused_by_name(value: str):
    code = f"import threading\nheld = {value}\ndef g(): return held\ndef f(x): return g()"
    with pytest.raises(TypeError, match="held of g cannot be hashed, .* whether it has changed"):
        digest_of(typed(code))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("table.csv", "def f(x): return open('table.csv').read()"),
        ("beside.py", "def f(x):\n  import beside\n  return beside.A"),
        ("beside.py", "def f(x):\n  from beside import A\n  return A"),
    ],
)
def test_files_that_a_typed_function_names_or_imports_count(tmp_path: Path, name: str, code: str):
    functions = typed(code), typed("def f(x): return 'other.py'")
    digests = []
    for text in ("A = 1", "A = 2"):
        (tmp_path / name).write_text(text)
        digests.append([digest_of(function, tmp_path) for function in functions])
    assert digests[0][0] != digests[1][0] and digests[0][1] == digests[1][1]


# Functions in files

MODULE = """
import inner
FACTOR = 3
TABLE = {"a": [3]}
def g(x): return FACTOR * TABLE["a"][0] * inner.A * x
def f(x): return g(x)
def made(held):
    def f(x): return held * x
    return f
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> types.ModuleType:
    """A module of its reader's own, which imports another."""
    (tmp_path / "own.py").write_text(MODULE)
    (tmp_path / "inner.py").write_text("A = 1\ndef unused(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own")
    for name in ("own", "inner"):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [("FACTOR", 4), ("TABLE", {"a": [4]}), ("g", lambda x: x), ("inner.A", 4)],
)
def test_a_name_of_a_module_that_was_changed_in_memory_counts(module, monkeypatch, name, value):
    before = digest_of(module.f)
    monkeypatch.setattr(f"own.{name}", value)
    assert digest_of(module.f) != before
    monkeypatch.undo()
    assert digest_of(module.f) == before


def test_a_list_that_was_changed_in_place_counts(module):
    before = digest_of(module.f)
    module.TABLE["a"][0] = 4
    assert digest_of(module.f) != before


def test_what_a_function_of_a_file_holds_counts_even_if_it_is_neither_code_nor_data(module):
    def digest(held) -> str:
        return digest_of(module.made(held))

    assert digest(Fraction(1, 2)) == digest(Fraction(1, 2)) != digest(Fraction(1, 3))
    with pytest.raises(TypeError, match="held of made.<locals>.f cannot be hashed"):
        digest(Lock())


@pytest.mark.parametrize("name", ["own.py", "inner.py"])
def test_a_source_file_counts_with_all_that_it_imports(module, tmp_path: Path, name: str):
    before = digest_of(module.f)
    with (tmp_path / name).open("a") as file:
        file.write("# changed\n")
    assert digest_of(module.f) != before


def test_code_that_was_loaded_before_its_file_changed_is_other_code(module, tmp_path: Path):
    """The old function under the digest of the new file would be taken for its results."""
    (tmp_path / "own.py").write_text(MODULE.replace("FACTOR * TABLE", "2 + FACTOR * TABLE"))
    stale = digest_of(module.f)
    importlib.invalidate_caches()
    assert digest_of(importlib.reload(module).f) != stale


def test_settings_count_apart_from_those_that_change_no_result():
    def digest(**changes) -> str:
        return digest_of(typed("def f(x): return SETTINGS.seed", SETTINGS=Settings(**changes)))

    assert digest() == digest(progress="off", cache=Path("elsewhere"), scheduler="local:2")
    assert len({digest(), digest(seed=1), digest(profile="smoke"), digest(model="gpt2")}) == 4


@pytest.mark.slow
def test_a_model_counts_by_its_weights_wherever_it_is_held(tiny, tokenizer):
    other = random_model(tiny.cfg.model_name, tokenizer, seed=1)
    code = "def f(): return model.W_U"
    held = [functools.partial(grid.run, model) for model in (tiny, other)]
    held += [typed(code, model=model) for model in (tiny, other)]
    assert len(set(map(digest_of, held))) == 4

"""What a class hands in: tricks that must earn nothing, code that must stop nobody, odd forms."""

from __future__ import annotations

import copy
import io
import json
import os
import time
import zipfile
from pathlib import Path

from toy import RIGHT, answered, at, code, index, text

from assignments.tools.records import Record
from assignments.tools.submissions import Handed

ALWAYS = "class Same(list):\n    __eq__ = lambda *a: True\n    __ne__ = lambda *a: False\n"
FRAME = """import sys
def frame():
    at = sys._getframe()
    while 'unpickler' not in at.f_locals: at = at.f_back
    return at.f_locals
"""
# Tricks: code for part 1, whose function is wrong or missing. None may earn the part.
TRICKS = {
    "replaces-as-tensor": "import torch\ntorch.as_tensor = lambda *a, **k: torch.zeros(2)\n"
    "def times1(x): return [0, 0]",
    "input-transformer": "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass'])\n"
    "def times1(x): return 0",
    "pops-modules": "import sys, types\nfor name in list(sys.modules):\n"
    "    if 'checks' in name or 'helpers' in name or 'inside' in name: del sys.modules[name]\n"
    "sys.modules['checks'] = types.ModuleType('checks')\nsys.modules['checks'].near = print\n"
    "def times1(x): return 0",
    "reads-expected": "import sys\ndef times1(x):\n    frame = sys._getframe()\n    while frame:\n"
    "        for space in (frame.f_locals, frame.f_globals):\n"
    "            if 'expected' in space: return space['expected']\n        frame = frame.f_back\n",
    "tensor-subclass": "import torch\nclass Always(torch.Tensor):\n"
    "    __torch_function__ = classmethod(lambda c, f, t, a=(), k=None: True)\n"
    "    __eq__ = lambda *a: True\ndef times1(x): return torch.zeros(2).as_subclass(Always)",
    "equal-to-all": f"{ALWAYS}def times1(x): return Same()",
    "finds-hooks": "import gc\nfor one in gc.get_objects():\n"
    "    if callable(one) and getattr(one, '__name__', '') in ('hook', 'near', 'own_work'):\n"
    "        try: one.__code__ = (lambda *a, **k: None).__code__\n        except Exception: pass\n"
    "def times1(x): return 0",
    "forges-an-answer": "import json, os, struct\nbody = json.dumps({'id': '', 'value': [2, 1]})"
    ".encode()\nfor n in range(3, 40):\n    try: os.write(n, struct.pack('>I', len(body)) + body)\n"
    "    except OSError: pass\ndef times1(x): return 0",
    "replaces-json": "import inside.wire as w\n"
    "w.encode = lambda *a: {'kind': 'pickle', 'data': 'cos\\nsystem\\n'}\ndef times1(x): return 0",
    "huge-message": "import os, struct\nos.write(3, struct.pack('>I', 2**32 - 1))\n"
    "def times1(x): return 0",
    "deep-value": "def times1(x):\n    y = []\n    for _ in range(10**5): y = [y]\n    return y",
    "exits-cleanly": "import atexit, os\ndef times1(x): os._exit(0)",
    "raises-success": "class Passed(BaseException): pass\ndef times1(x): raise Passed('ok')",
    "raises-assertion": "def times1(x): raise AssertionError('passed')",
    "says-nothing": "def times1(x): assert False",
    "typed-in": "def times1(x): return [2, 1] if x == [2, 1] else x[:1] + [0]",
    "calls-the-worker": "import gc\nfor one in gc.get_objects():\n"
    "    if type(one).__name__ == 'Worker': one._function = lambda *a: (lambda *b: [2, 1])\n"
    "def times1(x): return 0",
    "stops-others": "import os, signal\nfor n in (os.getppid(), 1, -1):\n"
    "    try: os.kill(n, signal.SIGTERM)\n    except OSError: pass\ndef times1(x): return 0",
    "returns-changed-input": "def times1(x):\n    y = list(x)\n    x.clear()\n    return y",
    "mutates-input": "def times1(x):\n    x[:] = [0.0 for one in x]\n    return x",
    "long-shape": "import torch\ndef times1(x): return torch.zeros(int(abs(x[0])) % 97 + 3)",
    "tells-inputs": "def times1(x): raise ValueError(f'inputs {x}')",
    "tells-by-time": "def times1(x): raise TimeoutError(f'inputs {x}')",
    "nan": "def times1(x): return [float('nan')] * len(x)",
    "proxies": "import sys, types\nclass All(types.ModuleType):\n"
    "    __getattr__ = lambda self, name: (lambda *a, **k: True)\n"
    "sys.modules['torch'] = sys.modules['numpy'] = All('all')\ndef times1(x): return 0",
    "answers-for-the-worker": f"{FRAME}import json, inside.wire as w\ndef times1(x):\n"
    "    here = frame()\n    reply = {'id': here['request']['id'], 'value': [2.0, 1.0]}\n"
    "    w.send(here['self'].channel, json.dumps(reply).encode())\n    return 0",
    "sends-an-error": f"{FRAME}import json, inside.wire as w\nhere = frame()\n"
    "reply = {'id': here['request']['id'], 'error': 5}\n"
    "w.send(here['self'].channel, json.dumps(reply).encode())\ndef times1(x): return 0",
}
# What code looks for or does outside; it reports what it got by raising. None may succeed.
REACH = {
    "argv": "import sys\nassert not any('assign' in a or 'polic' in a for a in sys.orig_argv)",
    "environment": "import os\nassert 'assign' not in str(os.environ)",
    "network": "import socket\nfor kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
    "    try:\n        s = socket.socket(socket.AF_INET, kind)\n"
    "        s.connect(('127.0.0.1', 53))\n        s.send(b'x')\n"
    "        raise AssertionError('sent')\n    except OSError: pass",
    "source": "import os\nassert not os.path.exists(SOURCE)\nassert not os.path.exists(OUT)",
    "disk": "import os, sys\nfound = []\nfor folder, inner, names in os.walk('/'):\n"
    "    if folder in (sys.prefix, sys.base_prefix, '/proc', '/usr', '/lib'): inner.clear()\n"
    "    found += [n for n in names if n in ('toy.ipynb', 'grades.csv', 'toy.json')]\n"
    "assert not found, found",
    "native": "import ctypes\nassert ctypes.CDLL(None).open(SOURCE.encode(), 0) == -1",
    "namespaces": "import ctypes\ncalls = ctypes.CDLL(None)\n"
    "assert calls.unshare(0x10000000) == calls.ptrace(0, 0, 0, 0) == -1",
    "book": "import inspect, subprocess, sys\nfrom helpers.results import intervals\n"
    "try: inspect.getsource(intervals)\nexcept OSError: pass\n"
    "else: raise AssertionError('a source')\n"
    "code = 'import helpers.settings, helpers.results.intervals'\n"
    "assert subprocess.run([sys.executable, '-c', code]).returncode == 1",
    "processes": "import os\nseen = [n for n in os.listdir('/proc') if n.isdigit()]\n"
    "assert len(seen) < 4, seen",
    "writes": "import os\nfor place in ('/usr/x', '/etc/x', '/x'):\n    try: open(place, 'w')\n"
    "    except OSError: continue\n    raise AssertionError(place)",
    "privileges": "import os\nassert os.getuid() != 0\ntry: os.setuid(0)\nexcept OSError: pass\n"
    "else: raise AssertionError('root')",
}
SLEEPER = "toy-sleeper-5817"
# Code that harms itself: (part 1, what the notes or the reason say). Parts 2 to 4 are right.
BAD = {
    "endless": ("def times1(x):\n    while True: pass", "took more than 2 seconds"),
    "deaf": (
        "def times1(x):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass",
        "took more than 2 seconds",
    ),
    "hoard": ("def times1(x):\n    y = []\n    while True: y.append(bytearray(10**8))", "emory"),
    "segfault": ("import ctypes\ndef times1(x): ctypes.string_at(0)", "ended its process"),
    "exit-in-cell": ("import os\nos._exit(3)", "ended its process"),
    "system-exit": ("def times1(x): raise SystemExit", "SystemExit"),
    "sleeps": ("import time\ndef times1(x): time.sleep(10**6)", "took more than 2 seconds"),
    "closes": ("import os\nos.close(3)", "ended its process"),
    "prints": (RIGHT[1] + "\nfor i in range(10**5): print('x' * 500)", ""),
    "forks": (
        RIGHT[1] + "\nimport os\nfor i in range(5):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        os.execvp('sleep', ['sleep', '5817'])",
        "",
    ),
    "syntax": ("def times1(x):\n    return (", "SyntaxError"),
}


def write(folder: Path, student: str, notebook: dict, name: str = "toy.ipynb") -> Path:
    path = folder / student / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def split(notebook: dict) -> None:
    at(notebook, "part1")["source"] = "def times1(x):\n    result = []"
    rest = "    for one in x:\n        result.append(one)\n    return result"
    notebook["cells"].insert(index(notebook, "part1") + 1, code(rest))


def copied(notebook: dict) -> None:
    cell = copy.deepcopy(at(notebook, "part1"))
    at(notebook, "part1")["source"] = "def times1(x):\n    return [0 for one in x]"
    notebook["cells"].insert(index(notebook, "part1") + 1, cell)


def stub_copied(notebook: dict) -> None:
    cell = copy.deepcopy(at(notebook, "part1"))
    cell["source"] = "def times1(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    notebook["cells"].append(cell)


def retyped(notebook: dict) -> None:
    at(notebook, "part1")["cell_type"] = "markdown"
    at(notebook, "part2")["cell_type"] = "raw"


def backwards(notebook: dict) -> None:
    notebook["cells"].reverse()


def unmarked(notebook: dict) -> None:
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        cell.pop("id", None)
    notebook["metadata"] = {}


def elsewhere(notebook: dict) -> None:
    """Every stub deleted, every answer in one cell of one's own at the end, the helper last."""
    for n in RIGHT:
        del notebook["cells"][index(notebook, f"part{n}")]
    calls = "\n\n".join(f"def times{n}(x):\n    return mine({n}, x)" for n in RIGHT)
    notebook["cells"] += [code(calls), code("mine = lambda n, x: [n * one for one in x]")]


def after_the_stub(notebook: dict) -> None:
    at(notebook, "part1")["source"] = (
        "def times1(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    )
    notebook["cells"].insert(index(notebook, "part1") + 1, code(RIGHT[1]))


def in_the_check(notebook: dict) -> None:
    del notebook["cells"][index(notebook, "part1")]
    check = at(notebook, "part1-check")
    check["source"] = f"{RIGHT[1]}\n\n{check['source']}"


def renamed(notebook: dict) -> None:
    at(notebook, "part1")["source"] = RIGHT[1].replace("times1", "times_one")
    del notebook["cells"][index(notebook, "part2")]
    notebook["cells"].append(code(RIGHT[2].replace("times2", "Times2")))


def indented(notebook: dict) -> None:
    at(notebook, "part1")["source"] = "    " + RIGHT[1].replace("\n", "\n    ")


def magics(notebook: dict) -> None:
    at(notebook, "part1")["source"] = "%%time\n" + RIGHT[1]
    at(notebook, "part2")["source"] = "%matplotlib inline\n!echo hello\n" + RIGHT[2]


def own_names(notebook: dict) -> None:
    """Names of the book and of the checks for things of one's own."""
    own = "def near(*a): return 0\nbook = 3\n"
    own += "def rank_correlation(n, x): return [n * one for one in x]"
    notebook["cells"].insert(2, code(own))
    at(notebook, "part1")["source"] = "def times1(x):\n    return rank_correlation(1, x)"


# Longer than what runs again for every part that is to be written out (alone.QUICK).
BUSY = "import time\nstart = time.process_time()\nwhile time.process_time() < start + 1.1: pass"


def slow_cells(notebook: dict) -> None:
    for place in (2, 2, 2, 2):
        notebook["cells"].insert(place, code(BUSY))


def endless_cells(notebook: dict) -> None:
    """In front of one that the answer to part 2 needs."""
    at(notebook, "part2")["source"] = "def times2(x):\n    return [twice(one) for one in x]"
    notebook["cells"].insert(2, code("def twice(one):\n    return 2 * one"))
    for place in (2, 2):
        notebook["cells"].insert(place, code("while True: pass"))


def unseen(notebook: dict) -> None:
    """A byte order mark in front of a cell, and spaces of a web page."""
    at(notebook, "part1")["source"] = "\ufeff" + RIGHT[1].replace("    ", "\t")
    at(notebook, "part2")["source"] = RIGHT[2].replace("    ", 4 * "\xa0") + "\u200b"


def broken_cells(notebook: dict) -> None:
    notebook["cells"].insert(2, code("1 / 0"))
    notebook["cells"].insert(2, code("this is no Python"))


def decorated(notebook: dict) -> None:
    at(notebook, "part1")["source"] = (
        "from functools import cache\n"
        + RIGHT[1]
        + ("\ntimes1 = (lambda f: lambda x: f(x))(times1)")
    )
    at(notebook, "part2")["source"] = "times2 = lambda x: [2 * one for one in x]"
    at(notebook, "part3")["source"] = (
        "import numpy as np\ndef times3(x):\n    return 3 * np.array(x)"
    )
    at(notebook, "part4")["source"] = (
        "import torch\ndef times4(x):\n    return (4 * torch.tensor(x)).requires_grad_()"
    )


def other_types(notebook: dict) -> None:
    """Values that a notebook takes for numbers: subclasses, a column of a table, a named tuple."""
    at(notebook, "part1")["source"] = "import pandas as pd\ndef times1(x):\n    return pd.Series(x)"
    at(notebook, "part2")["source"] = (
        "from collections import namedtuple\nPair = namedtuple('Pair', 'a b')\n"
        "class Double:\n    def __call__(self, x): return Pair(*(2 * one for one in x))\n"
        "times2 = Double()"
    )
    at(notebook, "part3")["source"] = (
        "class Mine(float): pass\ndef times3(x):\n    return [Mine(3 * one) for one in x]"
    )


def one_cell(notebook: dict) -> None:
    """All answers and checks in one cell, in front of everything."""
    whole = "\n\n".join(RIGHT[n] + "\n" + at(notebook, f"part{n}-check")["source"] for n in RIGHT)
    for n in RIGHT:
        for grade_id in (f"part{n}", f"part{n}-check"):
            del notebook["cells"][index(notebook, grade_id)]
    notebook["cells"].insert(1, code(whole))


def uses_check(notebook: dict) -> None:
    """A cell of one's own that uses what the set's cells define."""
    at(notebook, "part2")["source"] = "def times2(x):\n    return [two * one for one in x]"
    notebook["cells"].append(code("near([1.0], [1.0], 'fine')\ntwo = 2"))


def writes_module(notebook: dict) -> None:
    notebook["cells"].insert(2, code(f"%%writefile own_module.py\n{RIGHT[1]}"))
    at(notebook, "part1")["source"] = "from own_module import times1"
    at(notebook, "part2")["source"] = (
        "from enum import Enum\nclass Key(str, Enum):\n    A = 'a'\n"
        "def times2(x):\n    return {Key.A: [2 * one for one in x]}['a']"
    )


def odd_marks(notebook: dict) -> None:
    at(notebook, "part1")["metadata"]["nbgrader"]["grade_id"] = ["a", {"list": 1}]
    at(notebook, "part2")["id"] = {"no": "text"}
    at(notebook, "part3-check")["metadata"]["nbgrader"]["points"] = 1000
    notebook["cells"].append("no cell at all")
    notebook["cells"].append(code("# half a letter: \ud800"))


FORMS = [split, copied, stub_copied, retyped, backwards, unmarked, elsewhere, after_the_stub]
FORMS += [in_the_check, renamed, indented, magics, own_names, slow_cells, broken_cells, decorated]
FORMS += [unseen, writes_module, uses_check, odd_marks, other_types, one_cell, endless_cells]


def written_elsewhere(notebook: dict) -> None:
    at(notebook, "written5")["source"] = "YOUR ANSWER HERE"
    notebook["cells"].append(text("In a cell of my own: because."))


def written_in_code(notebook: dict) -> None:
    at(notebook, "written5")["cell_type"] = "code"


def written_in_question(notebook: dict) -> None:
    place = index(notebook, "written5")
    notebook["cells"][place - 1]["source"] += "\n\nIt follows from the question: because."
    del notebook["cells"][place]


def written_as_picture(notebook: dict) -> None:
    data = {"image/png": "iVBORw0KGgo="}
    at(notebook, "written5")["source"] = "![](attachment:a.png)"
    at(notebook, "written5")["attachments"] = {"a.png": data}


def written_far_away(notebook: dict) -> None:
    at(notebook, "written5")["source"] = "YOUR ANSWER HERE"
    notebook["cells"].insert(1, text(f"# My answers\n{'Because it is repeated adding. ' * 5}"))


WRITTEN_FORMS = [written_elsewhere, written_in_code, written_in_question, written_as_picture]
WRITTEN_FORMS += [written_far_away]


def as_bytes(notebook: dict) -> dict[str, tuple[str, bytes]]:
    """One notebook in the forms that editors, mail programs and browsers make of it."""
    plain = json.dumps(notebook, ensure_ascii=False)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("toy/toy.ipynb", plain)
        archive.writestr("toy/checks/__init__.py", "near = print")
    heavy = copy.deepcopy(notebook)
    at(heavy, "part1")["outputs"] = [{"output_type": "stream", "text": "x" * 30_000_000}]
    return {
        "bom": ("toy.ipynb", 2 * b"\xef\xbb\xbf" + plain.encode() + 9 * b"\0" + b"\x1a"),
        "utf16": ("toy.ipynb", plain.encode("utf-16")),
        "latin": ("toy.ipynb", plain.replace("Because", "Für").encode("cp1252")),
        "crlf": ("toy.ipynb", json.dumps(notebook, indent=1).replace("\n", "\r\n").encode()),
        "txt": ("toy.ipynb.txt", plain.encode()),
        "upper": ("TOY.IPYNB", plain.encode()),
        "zipped": ("handed-in.zip", zipped.getvalue()),
        "zipped-too": ("toy.ipynb", zipped.getvalue()),
        "no-set": ("homework (1).ipynb", plain.encode()),
        "heavy": ("toy.ipynb", json.dumps(heavy).encode()),
        "version3": (
            "toy.ipynb",
            json.dumps(
                {"nbformat": 3, "worksheets": [{"cells": [_old(c) for c in notebook["cells"]]}]}
            ).encode(),
        ),
    }


def _old(cell: dict) -> dict:
    return {"input": cell["source"], **cell} if cell["cell_type"] == "code" else cell


UNREADABLE = {
    "cut": b'{"cells": [',
    "empty-file": b"",
    "list": b"[]",
    "number": b"3",
    "no-cells": b'{"content": {"cells": [{}]}}',
    "pdf": b"%PDF",
}


def write_class(folder: Path, version: dict, places: dict[str, Path]) -> None:
    """Write what everybody hands in."""
    for student, source in TRICKS.items():
        write(folder, student, answered(version, {1: source}))
    for student, source in REACH.items():
        for name, place in places.items():
            source = source.replace(name, repr(str(place)))
        body = "\n    ".join([*source.splitlines(), "return [1 * one for one in x]"])
        write(folder, f"reach-{student}", answered(version, {1: f"def times1(x):\n    {body}"}))
    for student, (source, _) in BAD.items():
        write(folder, student, answered(version, {1: source}))
    for change in FORMS + WRITTEN_FORMS:
        notebook = answered(version)
        change(notebook)
        write(folder, change.__name__, notebook)
    for student, (name, data) in as_bytes(answered(version)).items():
        path = write(folder, student, {}, name)
        path.write_bytes(data)
    for student, data in UNREADABLE.items():
        write(folder, student, {}).write_bytes(data)
    write(folder, "stub", version)
    write(folder, "zoë", answered(version))
    (folder / "folder.ipynb").mkdir()
    (folder / "link").mkdir()
    (folder / "link" / "toy.ipynb").symlink_to(places["SOURCE"])
    (folder / "only-pdf").mkdir()
    (folder / "only-pdf" / "toy.pdf").write_bytes(b"%PDF")


def sleeps(one: Handed, run: object) -> Record:
    """Work that says that it has begun, and takes longer than any test."""
    Path(one.place).touch()
    time.sleep(600)
    return Record(one.set, one.student)


def ends_its_worker(one: Handed, run: object) -> Record:
    """Work for a process that grades; it ends where Bob's file comes."""
    if one.student == "bob":
        os._exit(1)
    return Record(one.set, one.student)

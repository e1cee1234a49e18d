"""Submissions that borrow the book's own function or look round, and honest ones that look odd.

A line of three percent signs ends a cell: what stands before it is in cells of the student's own.
"""

from __future__ import annotations

from pathlib import Path

from class_of_toys import FRAME, write
from toy import RIGHT, SHARE, answered, at, code

CELL = "\n%%%\n"
# The book's function, called where the check does not look.
BOOK = "tuple(book.share_and_interval(hits))"
CALLS = f"def share6(hits): return {BOOK}"
# A process of one's own, which answers what comes through a pipe.
FORKED = """import json, os
to, back = os.pipe(), os.pipe()
if os.fork() == 0:
    while True:
        hits = json.loads(os.read(to[0], 10**6))
        os.write(back[1], json.dumps(list(ANSWER)).encode())
"""
ASKS = """def share6(hits):
    os.write(to[1], json.dumps(list(hits)).encode())
    return json.loads(os.read(back[0], 10**6))"""
KEPT = """from types import FunctionType
f = book.share_and_interval
"""
WORKER = "import sys\nserve = sys.modules['inside.serve']\n"
# Part 6 of the toy set: none of these writes the interval out. None may earn the part.
BORROWED = {
    "plain": CALLS,
    "patched-server": f"{WORKER}serve.Worker.written_out = lambda *a: {{'value': None}}\n"
    f"serve.take_away = serve._Stop = lambda *a: __import__('contextlib').nullcontext()\n{CALLS}",
    "patched-call": f"{WORKER}from inside import wire\nserve.Worker.written_out = "
    "lambda *a: {'value': None}\ndef call(self, request, models):\n    hits = request['args'][0]\n"
    f"    return {{'value': wire.encode({BOOK}), 'changed': False}}\nserve.Worker.call = call\n"
    "def share6(hits): return 0",
    "patched-own-work": "import gc\nfor one in gc.get_objects():\n"
    "    if type(one).__name__ == 'Worker': one.own_work = lambda *a: None\n"
    "    if getattr(one, '__name__', '') in ('own_work', '_reached'):\n"
    f"        one.__code__ = (lambda *a: []).__code__\n{KEPT}"
    "mine = FunctionType(f.__code__.replace(co_name='m', co_filename='m'), f.__globals__)\n"
    "def share6(hits): return tuple(mine(hits))",
    "other-name": f"{KEPT}mine = FunctionType(f.__code__.replace(co_name='m', co_filename='m'),\n"
    "    f.__globals__)\ndef share6(hits): return tuple(mine(hits))",
    "forked-before": FORKED.replace("ANSWER", BOOK) + CELL + ASKS,
    "forked-in-the-answer": FORKED.replace("ANSWER", BOOK) + ASKS,
    "answers-by-descriptor": f"{FRAME}import gc, json, os, pickle, inside.wire as w\n"
    "here = frame()['self'].channel\nif os.fork() == 0:\n    while True:\n"
    "        request = pickle.loads(w.receive(here))\n"
    "        value = None\n"
    "        if request.get('name') == 'share6' and request['do'] == 'call':\n"
    f"            hits = request['args'][0]\n            value = w.encode({BOOK})\n"
    "        w.send(here, json.dumps({'id': request['id'], 'value': value}).encode())\n"
    "import time\ntime.sleep(0.3)\ndef share6(hits): return 0",
    "table": "from itertools import product\ntable = {}\nfor n in range(1, 41):\n"
    "    for k in range(n + 1):\n        hits = [True] * k + [False] * (n - k)\n"
    f"        table[k, n] = {BOOK}{CELL}"
    "def share6(hits): return table[sum(hits), len(hits)]",
    "table-in-a-file": "import json, os\nif not os.path.exists('table.json'):\n    table = {}\n"
    "    for n in range(1, 41):\n        for k in range(n + 1):\n"
    f"            hits = [True] * k + [False] * (n - k)\n"
    f"            table[f'{{k}} {{n}}'] = {BOOK}\n"
    "    for place in ('/tmp', '/dev/shm', '.'):\n"
    f"        with open(f'{{place}}/table.json', 'w') as f:\n            json.dump(table, f){CELL}"
    "import json\ndef share6(hits):\n"
    "    for place in ('/tmp', '/dev/shm', '.'):\n        try: table = json.load(open(f'{place}/"
    "table.json'))\n        except OSError: continue\n"
    "        return table[f'{sum(hits)} {len(hits)}']",
    "code-in-a-file": f"import marshal\n{KEPT}with open('/tmp/code', 'wb') as file:\n"
    f"    marshal.dump(f.__code__.replace(co_name='m', co_filename='m'), file){CELL}"
    "import marshal, sys\nfrom types import FunctionType\ndef share6(hits):\n"
    "    space = vars(sys.modules['helpers.results.intervals'])\n"
    "    return tuple(FunctionType(marshal.load(open('/tmp/code', 'rb')), space)(hits))",
    "a-thread": "import queue, threading\nto, back = queue.Queue(), queue.Queue()\n"
    f"{KEPT}code = f.__code__.replace(co_name='m', co_filename='m')\ndef work():\n"
    "    while True: back.put(FunctionType(code, f.__globals__)(to.get()))\n"
    f"threading.Thread(target=work, daemon=True).start(){CELL}"
    "def share6(hits):\n    to.put(hits)\n    return tuple(back.get())",
    "puts-it-back": f"{KEPT}code = f.__code__\nclass Hits(list): pass\n"
    "def share6(hits):\n    now, f.__code__ = f.__code__, code\n    try: return tuple(f(hits))\n"
    "    finally: f.__code__ = now",
    "a-trace": "import sys\ndef watch(frame, event, arg):\n"
    "    if frame.f_code.co_name == 'written_out': frame.f_locals['request']['forbidden'] = []\n"
    "    if frame.f_code.co_name in ('call', 'cell') and 'request' in frame.f_locals:\n"
    "        frame.f_locals['request']['forbidden'] = []\nsys.setprofile(watch)\n"
    f"sys._getframe().f_back.f_trace = watch\n{CALLS}",
    "a-signal": f"{KEPT}import signal\ncode = f.__code__\ndef again(*a): f.__code__ = code\n"
    "signal.signal(signal.SIGALRM, again)\nimport time\nhidden = {'f': f}\n"
    "def share6(hits):\n    signal.setitimer(signal.ITIMER_REAL, 0.01)\n    time.sleep(0.05)\n"
    "    return tuple(globals()['hid' + 'den']['f'](hits))",
    "the-module-again": "import sys\ndef share6(hits):\n    for name, one in sys.modules.items():\n"
    "        if name.endswith('.intervals'):\n"
    "            return tuple(getattr(one, 'share_' + 'and_interval')(hits))",
    "fresh-python": "import json, subprocess, sys\ndef share6(hits):\n    text = 'import helpers."
    "results.intervals as b; print(list(b.share_and_interval(' + repr(list(hits)) + ')))'\n"
    "    return json.loads(subprocess.check_output([sys.executable, '-c', text]))",
    "pool-before": "import multiprocessing\ncontext = multiprocessing.get_context('fork')\n"
    f"pool = context.Pool(1)\n{KEPT}def get(x): return list(book.share_and_interval(x)){CELL}"
    "def share6(hits): return pool.apply(get, (hits,))",
}
# Part 1: ways to see or to change how one is graded. None may earn the part.
MORE_TRICKS = {
    "patches-wire": "import inside.wire as w\nplain = w.encode\n"
    "w.encode = lambda value, depth=0: plain([2.0, 1.0], depth)\ndef times1(x): return 0",
    "patches-pickle": "import pickle, io\nclass Mine(pickle._Unpickler):\n    def load(self):\n"
    "        got = super().load()\n        got['do'], got['source'] = 'cell', 'pass'\n"
    "        return got\npickle.Unpickler = Mine\nimport inside.serve as s\n"
    "s._Models = type('M', (Mine,), dict(vars(s._Models)))\ndef times1(x): return 0",
    "patches-dumps": "import json\nplain = json.dumps\ndef dumps(value, *a, **k):\n"
    "    if isinstance(value, dict) and 'id' in value: value.pop('error', None)\n"
    "    return plain(value, *a, **k)\njson.dumps = dumps\ndef times1(x): raise ValueError",
    "patches-send": "import inside.wire as w, json\nplain = w.send\ndef send(channel, body):\n"
    "    got = json.loads(body)\n    got['value'] = got['passed'] = True\n"
    "    plain(channel, json.dumps(got).encode())\nw.send = send\ndef times1(x): return 0",
    "patches-write": "import os, socket, struct\nos.write = lambda n, body: len(body)\n"
    "struct.pack = lambda *a: b'\\0\\0\\0\\0'\ndef times1(x): return 0",
    "passes-the-first": "seen = []\ndef times1(x):\n    seen.append(x)\n"
    "    return [2.0, 1.0] if len(seen) == 1 else seen[0]",
    "looks-at-the-stack": "import inspect\ndef times1(x):\n"
    "    said = str([f.frame.f_locals for f in inspect.stack()])\n"
    "    return [2.0, 1.0] if 'hidden' not in said else x[::-1]",
    "a-profile": "import sys\nfound = []\ndef watch(frame, event, arg):\n"
    "    found.extend(v for k, v in frame.f_locals.items() if k in ('expected', 'given', 'got'))\n"
    "sys.setprofile(watch)\ndef times1(x): return found[-1] if found else 0",
    "a-trace-of-threads": "import sys, threading\ndef watch(*a): return watch\n"
    "sys.settrace(watch)\nthreading.settrace(watch)\ndef times1(x): return [0 for one in x]",
    "searches-for-the-judge": "import gc\ndef times1(x):\n    for one in gc.get_objects():\n"
    "        if type(one).__name__ in ('Court', 'Remote', 'Frame', 'Part', 'Plan'): return one\n"
    "    for one in gc.get_objects():\n"
    "        if isinstance(one, list) and len(one) == 2 and one != x: return one",
    "replaces-builtins": "import builtins\nbuiltins.len = lambda x: 2\n"
    "builtins.isinstance = lambda *a: True\nbuiltins.abs = lambda x: 0.0\n"
    "builtins.getattr = lambda *a: None\ndef times1(x): return 0",
    "a-lasting-thread": "import threading, time, gc\ndef work():\n    while True:\n"
    "        for one in gc.get_objects():\n            if isinstance(one, dict) and one.get('id') "
    "and 'value' in one: one['value'] = [2.0, 1.0]\n        time.sleep(0.01)\n"
    "threading.Thread(target=work, daemon=True).start()\ndef times1(x):\n    return 0",
    "at-exit": "import atexit, os, sys\natexit.register(print, 'passed')\n"
    "sys.exitfunc = sys.excepthook = lambda *a: os._exit(0)\ndef times1(x): sys.exit(0)",
    "a-signal-handler": "import signal\nsignal.signal(signal.SIGINT, lambda *a: [2.0, 1.0])\n"
    "def times1(x): signal.raise_signal(signal.SIGINT)",
    "patches-torch": "import torch\nfor name in ('allclose', 'equal', 'isclose', 'eq', 'sub'):\n"
    "    setattr(torch, name, lambda *a, **k: torch.tensor(True))\n"
    "torch.Tensor.__sub__ = torch.Tensor.abs = lambda *a: torch.zeros(2)\n"
    "def times1(x): return torch.zeros(2)",
    "patches-the-book": "from helpers.results import intervals\nimport checks\n"
    "for one in (checks.near, checks.shaped, checks.untouched):\n"
    "    one.__code__ = (lambda *a, **k: None).__code__.replace(\n"
    "        co_freevars=one.__code__.co_freevars)\ndef times1(x): return 0",
    "over-a-restart": "import os\ndef times1(x):\n    for place in ('/tmp', '/dev/shm', '.'):\n"
    "        path = f'{place}/seen'\n"
    "        if os.path.exists(path): return eval(open(path).read())\n"
    "        open(path, 'w').write(repr(x))\n    os._exit(1)",
    "left-in-memory": "from multiprocessing import shared_memory as s\ndef times1(x):\n"
    "    try: box = s.SharedMemory('box')\n    except FileNotFoundError:\n"
    "        box = s.SharedMemory('box', create=True, size=64)\n        box.buf[0] = 1\n"
    "        return [2.0, 1.0]\n    return [0.0] * len(x)",
    "forks-the-server": "import os, time\nif os.fork():\n    while True: time.sleep(1)\n"
    "def times1(x): return [2.0, 1.0]",
    "a-value-of-many-types": "import numpy as np\nclass Any(np.ndarray):\n"
    "    __array_ufunc__ = lambda *a, **k: np.zeros(2)\n    __eq__ = lambda *a: True\n"
    "def times1(x): return np.zeros(2).view(Any)",
    "an-error-for-a-value": "class Value(AssertionError):\n    of_student = False\n"
    "def times1(x): raise Value('times 2 and 1')",
}
# Honest and unusual: every part is answered, and must be earned.
HONEST = {
    "own-helper": "def square(z):\n    return z * z\n\ndef reach(p, n, z):\n"
    "    return z * (p * (1 - p) / n + square(z) / (4 * n * n)) ** 0.5"
    + CELL
    + SHARE.replace(
        "reach = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5", "d = reach(p, n, z)"
    )
    .replace("- reach", "- d")
    .replace("+ reach", "+ d"),
    "own-decorator": "from functools import wraps\ndef checked(f):\n    @wraps(f)\n"
    "    def inner(hits):\n        if not hits:\n            raise ValueError('none')\n"
    f"        return f(hits)\n    return inner{CELL}@checked\n{SHARE}",
    "recursion": SHARE.replace(
        "len(hits), sum(hits) / len(hits)", "count(hits, 0), count(hits, 1) / count(hits, 0)"
    )
    + "\n\ndef count(hits, only):\n    if not hits:\n        return 0\n"
    "    return int(hits[0] or not only) + count(hits[1:], only)",
    "threads": "from concurrent.futures import ThreadPoolExecutor\n"
    + SHARE.replace("sum(hits)", "sum(ThreadPoolExecutor(4).map(int, hits))"),
    "processes": "import multiprocessing\n\ndef one(x):\n    return int(x)\n\n"
    + SHARE.replace(
        "    n, p",
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        hits = pool.map(one, hits)\n    n, p",
    ),
    "pool-in-a-cell": "from concurrent.futures import ProcessPoolExecutor\nimport multiprocessing\n"
    "pool = ProcessPoolExecutor(2, multiprocessing.get_context('fork'))"
    + CELL
    + SHARE.replace("sum(hits)", "sum(pool.map(int, hits))"),
    "many-processes": "import multiprocessing, time\n"
    "pool = multiprocessing.get_context('fork').Pool(12)\ntime.sleep(0.8)"
    + CELL
    + SHARE.replace("sum(hits)", "sum(pool.map(int, hits))"),
    "joblib": "from joblib import Parallel, delayed\n"
    + SHARE.replace("sum(hits)", "sum(Parallel(2)(delayed(int)(one) for one in hits))"),
    "own-imports": "import math as m, statistics\nfrom fractions import Fraction as F\n"
    "z = statistics.NormalDist().inv_cdf(0.975)\ndef share6(hits):\n"
    "    n, k = len(hits), sum(hits)\n    root = m.sqrt(z * z + 4 * k * float(F(n - k, n)))\n"
    "    low, high = (2 * k + z * z + s * z * root for s in (-1, 1))\n"
    "    return k / n, low / (2 * (n + z * z)), high / (2 * (n + z * z))",
    "a-class": "class Share:\n    Z = 1.959964\n    def __init__(self, hits): self.hits = hits\n"
    "    def both(self):\n"
    + SHARE.partition("\n")[2]
    .replace("\n", "\n    ")
    .replace("    n, p, z", "        hits = self.hits\n        n, p, z", 1)
    + CELL
    + "def share6(hits):\n    return Share(hits).both()",
    "a-constant": f"Z = 1.959964\nSETTINGS = {{}}{CELL}SETTINGS['z'] = Z{CELL}"
    + SHARE.replace("1.959964", "SETTINGS['z']"),
    "a-cache": "from functools import lru_cache\n\n@lru_cache\ndef cached(hits):\n"
    + SHARE.partition("\n")[2]
    + "\n\ndef share6(hits):\n    return cached(tuple(hits))",
    "with-numpy": "import numpy as np\ndef share6(hits):\n    a = np.array(hits, float)\n"
    "    n, p, z = a.size, a.mean(), 1.959964\n    d = 1 + z**2 / n\n"
    "    ends = np.array([-1, 1]) * z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))\n"
    "    return np.concatenate([[p], (p + z**2 / (2 * n) + ends) / d])",
    "two-cells": SHARE.partition("    low")[0]
    + "    return finish(p, n, z, reach)"
    + CELL
    + "def finish(p, n, z, reach):\n    low = p + z**2 / (2 * n) - reach\n"
    "    high = low + 2 * reach\n    return p, low / (1 + z**2 / n), high / (1 + z**2 / n)",
    "a-generator": SHARE.replace("def share6", "def ends").replace(
        "    return p, low", "    yield p\n    yield from (low"
    )
    + ")\n\ndef share6(hits):\n    return list(ends(hits))",
    "compares-with-the-book": f"hits = [True, False]\nprint({BOOK}){CELL}{SHARE}{CELL}"
    "print(share6(hits), book.share_and_interval(hits))",
    "same-names": "def share_and_interval(hits):\n"
    + SHARE.partition("\n")[2]
    + CELL
    + "def share6(hits):\n    return share_and_interval(hits)",
    "a-slow-cell": "import time\nstart, z95 = time.process_time(), 1.959964\n"
    "while time.process_time() < start + 1.2: pass" + CELL + SHARE.replace("1.959964", "z95"),
    "after-the-check": SHARE.replace("1.959964", "LATER"),
    "a-file": "open('z.txt', 'w').write('1.959964')"
    + CELL
    + SHARE.replace("1.959964", "float(open('z.txt').read())"),
}
FOREIGN = "from a_module_of_theirs import share6"  # installed where the student worked
HONEST_END = {"after-the-check": "LATER = 1.959964"}


def submission(version: dict, source: str, part: str) -> dict:
    """A notebook with right answers but for one part, whose last cell answers it."""
    notebook = answered(version)
    *own, last = source.split(CELL)
    at(notebook, part)["source"] = last
    for number, one in enumerate(own):
        notebook["cells"].insert(2 + number, code(one))
    return notebook


def write_tricks(folder: Path, version: dict) -> None:
    """Write what everybody of this class hands in."""
    for name, source in BORROWED.items():
        write(folder, f"borrowed-{name}", submission(version, source, "part6"))
    for name, source in MORE_TRICKS.items():
        assert source != RIGHT[1]
        write(folder, f"trick-{name}", submission(version, source, "part1"))
    write(folder, "foreign", submission(version, FOREIGN, "part6"))
    for name, source in HONEST.items():
        notebook = submission(version, source, "part6")
        if name in HONEST_END:
            notebook["cells"].append(code(HONEST_END[name]))
        write(folder, f"honest-{name}", notebook)

"""Run student code in a sandbox: execute cells, call functions, send plain values back.

``main`` loads the package and the models once and forks for each student: into a guardian, which
waits, and a worker behind walls, which runs the student's code. Requests come pickled from the
grader; replies leave as JSON (``wire``). Nothing here judges.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import io
import json
import os
import pickle
import signal
import socket
import sys
from pathlib import Path

from . import taken, walls, wire


def main(control: socket.socket, policy: dict) -> None:
    """Fork a worker for each message on ``control``, which carries its channel.

    A message without a channel names models to build now, once for all workers to come.
    """
    import checks
    from IPython.core.interactiveshell import InteractiveShell

    # Load what every worker needs, before there is any student code.
    walls.prctl(walls.PR_SET_PDEATHSIG, signal.SIGKILL)
    checks.the_model()
    InteractiveShell.instance()  # imports what a shell needs
    InteractiveShell.clear_instance()
    for name in policy["modules"]:  # once here instead of once a student
        with contextlib.suppress(ImportError):  # some need an extra
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()  # no copies of pages because of reference counting
    control.sendall(b"ready")
    # Then one order after another: models to build, or a worker to fork.
    before, allowed = _data(), policy["memory_bytes"]
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not message:
            return
        order = json.loads(message)
        if not descriptors:
            for key in order["models"]:
                with checks.untouched(checks.tiny(*key) if key else checks.the_model()):
                    pass  # it keeps what each worker would otherwise work out for itself
            gc.freeze()
            policy["memory_bytes"] = allowed + _data() - before  # no student pays for them
            control.sendall(b"ready")
            continue
        with socket.socket(fileno=descriptors[0]) as channel:
            if os.fork() == 0:
                try:
                    _guard(control, channel, policy | order)
                finally:
                    os._exit(0)


def _data() -> int:
    """Bytes of this process that its limit on data counts (Linux; elsewhere 0)."""
    with contextlib.suppress(OSError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[5]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _guard(control: socket.socket, channel: socket.socket, policy: dict) -> None:
    """Build the walls, start the worker, wait for its end, and end what it leaves behind."""
    # Whatever the worker starts becomes a child of this process, which dies with its parent.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    walls.prctl(walls.PR_SET_PDEATHSIG, signal.SIGKILL)
    walls.prctl(walls.PR_SET_CHILD_SUBREAPER, 1)
    os.setsid()
    apart = policy["isolation"] != "limits" and walls.unshare(policy["slot"])
    go, told = os.pipe()
    worker = os.fork()
    if worker == 0:
        control.close()
        os.close(told)
        os.read(go, 1)
        try:
            _work(channel, policy, apart)
        finally:
            os._exit(0)
    os.close(go)
    control.sendall(json.dumps({"worker": worker, "apart": apart}).encode() + b"\n")
    channel.close()
    os.write(told, b"x")
    os.waitpid(worker, 0)
    walls.end_children()


def _work(channel: socket.socket, policy: dict, apart: bool) -> None:
    """Shut this process in, and answer requests."""
    # Only the channel stays open, as descriptor 3.
    walls.prctl(walls.PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.dup2(channel.fileno(), 3)
    os.closerange(4, 4096)
    channel.detach()
    channel = socket.socket(fileno=3)
    # From here on: a file system of its own, limits, and no privileges.
    try:
        if apart:
            walls.new_root(policy["readable"], policy["file_bytes"])
        else:
            os.chdir(policy["scratch"])
        walls.limit(policy["memory_bytes"], policy["file_bytes"])
        walls.drop_privileges(policy["slot"])
        held = ["namespaces"] if apart else []
        if not apart and walls.landlock(policy["readable"], [policy["scratch"]]):
            held.append("Landlock")
        if walls.narrow():  # a second wall, which a container may not allow
            held.append("seccomp")
    except OSError as error:
        wire.send(channel, json.dumps({"id": "start", "error": ["OSError", str(error)]}).encode())
        return
    here = os.getcwd()
    for name in ("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        os.environ[name] = here
    sys.path.insert(0, here)  # as in a notebook, for modules that a student's cell writes
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Worker(channel).run(held)


class _Models(pickle.Unpickler):
    """Requests name models instead of carrying them: ("tiny", "llama", 1) or ("the_model",)."""

    def persistent_load(self, name: tuple) -> object:
        import checks

        model = getattr(checks, name[0])(*name[1:])
        self.models.append(model)
        return model


class Worker:
    """Answers requests about one student's code, one at a time."""

    def __init__(self, channel: socket.socket) -> None:
        import checks
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        class Shell(InteractiveShell):
            system = InteractiveShell.system_raw  # "!" commands, without a terminal

            def enable_gui(self, gui=None):  # %matplotlib asks for it
                pass

        quiet = Config()
        quiet.HistoryManager.enabled = False
        quiet.InteractiveShell.colors = "nocolor"
        self.channel, self.checks = channel, checks
        self.shell = Shell.instance(config=quiet)
        # Bound before any student code runs, which may replace the modules' functions.
        self.untouched, self.own_work = checks.untouched, checks.own_work

    def run(self, held: list[str]) -> None:
        """Say what this process is held by, then answer until the grader closes the channel."""
        wire.send(self.channel, json.dumps({"id": "start", "value": held}).encode())
        while True:
            try:
                body = wire.receive(self.channel)
            except EOFError:
                return
            except KeyboardInterrupt:  # came too late: the cell had just ended
                continue
            reply = {"id": ""}
            try:
                unpickler = _Models(io.BytesIO(body))
                unpickler.models = []
                request = unpickler.load()
                reply["id"] = request["id"]
                reply |= getattr(self, request["do"])(request, unpickler.models)
                text = json.dumps(reply).encode()
            except BaseException as error:  # student code can raise anything
                text = json.dumps({"id": reply["id"], "error": describe(error)}).encode()
            if len(text) > wire.MAX_BYTES:
                error = ["ValueError", f"the answer is larger than {wire.MAX_BYTES >> 20} MB"]
                text = json.dumps({"id": reply["id"], "error": error}).encode()
            wire.send(self.channel, text)

    def cell(self, request: dict, models: list) -> dict:
        """Run a cell."""
        result = self.shell.run_cell(request["source"], store_history=False)
        error = result.error_before_exec or result.error_in_exec
        return {"error": describe(error)} if error else {"value": None}

    def given(self, request: dict, models: list) -> dict:
        """Run the book's own cell in a namespace of its own, and hand out what it defines."""
        space = dict(self.shell.user_ns)
        exec(compile(request["source"], "given", "exec"), space)
        self.shell.user_ns.update(space)
        return {"value": None}

    def call(self, request: dict, models: list) -> dict:
        """Call a function; the reply says whether it changed an argument in place."""
        function = self._function(request["name"])
        before = [_picture(argument) for argument in request["args"]]
        with self.untouched(*models):
            value = function(*request["args"], **request["kwargs"])
        changed = before != [_picture(argument) for argument in request["args"]]
        return {"value": wire.encode(value), "changed": changed}

    def take_away(self, request: dict, models: list) -> dict:
        """From here on this process has none of the book's functions of some names."""
        taken.take_away(request["forbidden"])
        return {"value": None}

    def written_out(self, request: dict, models: list) -> dict:
        """Whether a function does without some of the book's."""
        self.own_work(self._function(request["name"]), *request["forbidden"])
        return {"value": None}

    def _function(self, name: str) -> object:
        if name not in self.shell.user_ns:
            raise NameError(f"{name} is not defined")
        return self.shell.user_ns[name]


def _picture(value: object) -> object:
    """Something that changes when a list, a dictionary or a tensor is changed in place."""
    import torch

    if not isinstance(value, (list, dict, torch.Tensor)):
        return None
    try:
        return json.dumps(wire.encode(value))
    except TypeError:
        return None


def describe(error: BaseException) -> list[str]:
    """The name of a built-in class of an error, and its message."""
    for kind in type(error).__mro__:
        if getattr(builtins, kind.__name__, None) is kind:
            break
    try:
        text = str(error)
    except Exception:
        text = ""
    return [kind.__name__, text[:500].encode("utf-8", "replace").decode("utf-8")]

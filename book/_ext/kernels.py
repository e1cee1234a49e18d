"""Start notebook kernels quickly: forks of one process that has all of it loaded (Linux, CPU).

To import PyTorch and TransformerLens and to load the model takes a kernel seconds, as long as many
a chapter's work in the profile smoke. ``python -m book._ext.kernels`` does it once and forks a
kernel for every line of JSON that it reads. Elsewhere, kernels start as Jupyter starts them: on
macOS a fork of such a process is not safe, and a process that has looked for a GPU cannot be
forked.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, NoReturn
from uuid import uuid4

import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning import LocalProvisioner
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
# What chapters import, but for the book's own modules.
LIBRARIES = "ipykernel.kernelapp torch transformers transformer_lens.model_bridge seaborn".split()
LIBRARIES += ["scipy.optimize", "scipy.stats", "myst_nb.ext.glue"]
LONGEST = 80  # characters of a folder of sockets: their whole path may have 103 on macOS
# From <linux/prctl.h>: have the kernel send a signal when the parent dies, however it dies.
PR_SET_PDEATHSIG = 1
PARENT = "STEERING_BOOK_PARENT"  # the id of the process that starts others; 1 in some containers


def die_with_parent() -> None:
    """Have this process killed when its parent dies, so that none is left running alone (Linux).

    A kernel that Jupyter starts watches its own parent and ends a second later.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ[PARENT]):  # it died before the line above
            sys.exit("the process that started this one is gone")


class Kernel(psutil.Process):
    """A forked kernel, with what Jupyter asks of a ``Popen``: it is no child of this process."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        """None while it runs."""
        try:
            return None if self.is_running() and self.status() != psutil.STATUS_ZOMBIE else 0
        except psutil.NoSuchProcess:  # it has ended between the two
            return 0


class Kernels:
    """Starts kernels, and can end all of them.

    Args:
        env: environment variables of all kernels, with PARENT, and with those that libraries read
            when they are imported.
        fork: whether the device allows for forks.
    """

    def __init__(self, env: dict[str, str], fork: bool = True) -> None:
        self.env = env
        self.fork = fork and sys.platform == "linux"
        self.server: subprocess.Popen | None = None
        self.folder = TemporaryDirectory(prefix="kernels-")
        self.lock = Lock()
        self.running: list[Any] = []
        self.ended = False

    def manager(self) -> AsyncKernelManager:
        """A kernel manager for nbclient, whatever kernel a notebook names."""
        options: dict[str, Any] = {
            # The interpreter that runs this, whatever kernels are installed for the user.
            "kernel_spec_manager": KernelSpecManager(kernel_dirs=[]),
            "kernel_name": "python3",
            "connection_file": str(Path(self.folder.name, f"{uuid4().hex[:8]}.json")),
        }
        # Sockets that are files: two kernels that start at once could be given the same port.
        if sys.platform != "win32" and len(self.folder.name) < LONGEST:
            options["transport"] = "ipc"
        manager = AsyncKernelManager(**options)
        manager.provisioner = Provisioner(parent=manager, kernel_spec=manager.kernel_spec)
        manager.provisioner.kernels = self
        return manager

    def start(self, command: list[str], cwd: str) -> Kernel:
        """Fork a kernel.

        Args:
            command: of the kernel's specification.
            cwd: its working directory.

        Raises:
            RuntimeError: the server could not import the libraries, or all was ended.
        """
        with self.lock:
            if self.ended:  # while this waited for the lock
                raise RuntimeError("kernels were ended")
            if self.server is None or self.server.poll() is not None:
                self.server = subprocess.Popen(
                    [sys.executable, "-m", "book._ext.kernels", *LIBRARIES],
                    cwd=ROOT,
                    env=self.env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            try:
                print(json.dumps([command, cwd]), file=self.server.stdin, flush=True)
                return Kernel(int(self.server.stdout.readline()))
            except (OSError, ValueError) as error:
                self.server.wait()
                raise RuntimeError("no kernel could be started; see the messages above") from error

    def end(self) -> None:
        """Kill all kernels and the server; no other can be started."""
        self.ended = True
        for process in [*self.running, *([self.server] if self.server else [])]:
            try:
                process.kill()
            except (OSError, psutil.NoSuchProcess):
                continue
        if self.server:
            self.server.wait()
        self.folder.cleanup()


class Provisioner(LocalProvisioner):
    """Has :class:`Kernels` fork the kernel."""

    kernels: Kernels

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch a kernel with a command."""
        if self.kernels.fork:
            self.process = self.kernels.start(cmd, str(kwargs.get("cwd") or Path.cwd()))
            self.pid = self.pgid = self.process.pid
        else:
            await super().launch_kernel(cmd, **kwargs | {"env": self.kernels.env})
        self.kernels.running.append(self.process)
        return self.connection_info


class Client(NotebookClient):
    """nbclient with a kernel of :class:`Kernels`, which ends with the notebook's execution."""

    def __init__(self, notebook: NotebookNode, *, kernels: Kernels, **options: Any) -> None:
        super().__init__(notebook, km=kernels.manager(), shutdown_kernel="immediate", **options)

    def execute(self, **how: Any) -> NotebookNode:
        """Execute all cells."""
        return super().execute(cleanup_kc=True, **how)


def preload_model() -> None:
    """Load the model that chapters ask for, unless it would have to be downloaded."""
    from helpers.models.packed import PACKED, folder_of
    from helpers.settings import SETTINGS

    if SETTINGS.model not in PACKED or not folder_of(SETTINGS.model).exists():
        return
    import torch

    from helpers.models.load import INHERITED, load_model

    # A process with a pool of OpenMP threads cannot be forked: the forks would wait for them.
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        key = SETTINGS.model, SETTINGS.device, torch.float32
        INHERITED[key] = load_model(*key)
    except (OSError, RuntimeError, ValueError, SystemExit):
        pass  # the chapter that asks for it will say what is wrong
    torch.set_num_threads(n_threads)


def serve(libraries: Sequence[str]) -> None:
    """Load everything, then fork a kernel for each line of the standard input."""
    die_with_parent()
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for name in libraries:
        import_module(name)
    preload_model()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for kernels that have ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this
    server = os.getpid()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            run_kernel(*json.loads(line), server)
        print(pid, flush=True)


def run_kernel(command: list[str], cwd: str, server: int) -> NoReturn:
    """Be a kernel."""
    os.environ[PARENT] = str(server)
    die_with_parent()
    os.setsid()  # signals to the kernel reach what it starts, as in Jupyter
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.chdir(cwd)
    del sys.path[0]  # this project's folder, where the server was started
    from ipykernel import kernelapp

    arguments = command[command.index("-f") :]
    sys.argv = ["ipykernel_launcher", *arguments]
    kernelapp.launch_new_instance([*arguments, f"--IPKernelApp.parent_handle={server}"])
    sys.exit()


if __name__ == "__main__":
    serve(sys.argv[1:])

"""The kernel of a student's notebook, started with limits and, if asked, as another user. Runs by itself, as a script.

The limits on memory and files are the operating system's. The refusals (no other process, no network, nothing written outside the
scratch folder, nothing read where sources and other submissions lie) are Python audit hooks: they stop accidents and simple mischief, not
a determined attacker, who can reach around them through native code. For that there are another user and a container.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "shutil.rmtree",
)
READS = ("os.listdir", "os.scandir", "sqlite3.connect", "shutil.copyfile", "shutil.copytree")
REFUSED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.killpg",
    "pty.spawn",
    "subprocess.Popen",
)

NOT_ALLOWED = "not allowed while this notebook is graded"


def limit(memory_bytes: int, file_bytes: int) -> None:
    """Set the operating system's limits on this process, where it has them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, value in (
        ("RLIMIT_DATA", memory_bytes),
        ("RLIMIT_FSIZE", file_bytes),
        ("RLIMIT_CORE", 0),
    ):
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (
            ValueError,
            OSError,
            AttributeError,
        ):  # a stricter limit is set already, or none of that kind exists
            pass


def become(user: str, scratch: str) -> None:
    """Give the scratch folder to a user, and go on as that user."""
    import pwd

    entry = pwd.getpwnam(user)
    for folder, _, files in os.walk(scratch):
        for path in (folder, *(os.path.join(folder, file) for file in files)):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def refuse(event: str, what: object) -> None:
    raise PermissionError(f"{NOT_ALLOWED}: {event} {what}")


def guard(scratch: str, hidden: list[str]) -> Callable[[str, tuple], None]:
    """The audit hook: called by Python for every file opened, process started and connection made."""
    writable = (os.path.realpath(scratch), "/dev")
    secret = tuple(os.path.realpath(path) for path in hidden)
    realpath, fspath, readlink, fsdecode = os.path.realpath, os.fspath, os.readlink, os.fsdecode

    def place(path: object, folder: object = -1) -> str:
        path = fsdecode(fspath(path))
        if isinstance(folder, int) and folder >= 0 and not path.startswith("/"):
            path = readlink(f"/proc/self/fd/{folder}") + "/" + path
        return realpath(path)

    def inside(path: str, folders: tuple[str, ...]) -> bool:
        return any(path == folder or path.startswith(folder + "/") for folder in folders)

    def hook(event: str, args: tuple) -> None:
        if event == "open" and not isinstance(args[0], int):
            path, writing = place(args[0]), bool((args[2] or 0) & WRITING)
            if inside(path, secret) or (writing and not inside(path, writable)):
                refuse("open", path)
        elif event in CHANGES:
            folders = [value for value in args[1:] if isinstance(value, int)][-1:] or [-1]
            for value in args[:2]:
                if isinstance(value, (str, bytes, os.PathLike)) and not inside(
                    place(value, folders[0]), writable
                ):
                    refuse(event, value)
        elif event in READS:
            if (
                args
                and isinstance(args[0], (str, bytes, os.PathLike))
                and inside(place(args[0]), secret)
            ):
                refuse(event, args[0])
        elif event in REFUSED or (event == "socket.connect" and isinstance(args[1], tuple)):
            refuse(event, "")

    return hook


def main() -> None:
    """Start the kernel. First argument: the policy as JSON; the others are the kernel's own."""
    policy, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    connection = arguments[arguments.index("-f") + 1]
    own = str(Path(policy["scratch"], "kernel.json"))  # where the kernel's user can read it
    shutil.copy(connection, own)
    arguments[arguments.index("-f") + 1] = own
    if policy["user"]:
        become(policy["user"], policy["scratch"])
    limit(policy["memory_bytes"], policy["file_bytes"])
    os.chdir(policy["scratch"])
    from ipykernel.kernelapp import IPKernelApp

    sys.addaudithook(guard(policy["scratch"], policy["hidden"]))
    sys.argv = [sys.argv[0]]
    IPKernelApp.launch_instance(argv=[*arguments, "--log-level=40"])


if __name__ == "__main__":
    main()

"""Start the kernel of a student's notebook with limits and, if asked, as another user.

Runs as a script. The operating system enforces the limits on memory and file size. Python audit
hooks refuse other processes, network connections, writing outside the scratch folder, and reading
sources and other submissions. They stop accidents and simple mischief, but not a determined
attacker, who can get around them through native code; for that, use another user or a container.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events by what they do.
CHANGES = set(
    "os.remove os.rename os.rmdir os.mkdir os.truncate os.chmod os.chown os.link os.symlink "
    "shutil.rmtree".split()
)
READS = set("os.listdir os.scandir sqlite3.connect shutil.copyfile shutil.copytree".split())
REFUSED = set(
    "os.system os.exec os.posix_spawn os.spawn os.fork os.forkpty os.kill os.killpg pty.spawn "
    "subprocess.Popen".split()
)
NOT_ALLOWED = "not allowed while this notebook is graded"


def limit(memory_bytes: int, file_bytes: int) -> None:
    """Set the operating system's limits on this process, where it has them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {"RLIMIT_DATA": memory_bytes, "RLIMIT_FSIZE": file_bytes, "RLIMIT_CORE": 0}
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (ValueError, OSError, AttributeError):
            pass  # a stricter limit is already set, or this system has none of the kind


def become(user: str, scratch: str) -> None:
    """Give the scratch folder to a user, and continue as that user."""
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
    """The audit hook: Python calls it for every file opened, process started, connection made."""
    writable = (os.path.realpath(scratch), "/dev")
    secret = tuple(os.path.realpath(path) for path in hidden)
    # Own references: student code can replace the functions in os.
    realpath, fspath, readlink, fsdecode = os.path.realpath, os.fspath, os.readlink, os.fsdecode

    def resolve(path: object, folder: object = -1) -> str:
        """An absolute path without links; ``folder`` is a file descriptor or -1."""
        path = fsdecode(fspath(path))
        if isinstance(folder, int) and folder >= 0 and not path.startswith("/"):
            path = readlink(f"/proc/self/fd/{folder}") + "/" + path
        return realpath(path)

    def inside(path: str, folders: tuple[str, ...]) -> bool:
        return any(path == folder or path.startswith(folder + "/") for folder in folders)

    def is_path(value: object) -> bool:
        return isinstance(value, (str, bytes, os.PathLike))

    def hook(event: str, args: tuple) -> None:
        if event == "open" and not isinstance(args[0], int):
            path, writing = resolve(args[0]), bool((args[2] or 0) & WRITING)
            if inside(path, secret) or (writing and not inside(path, writable)):
                refuse("open", path)
        elif event in CHANGES:
            # Up to two paths, then perhaps the descriptor of the folder that they are relative to.
            folder = ([value for value in args[1:] if isinstance(value, int)] or [-1])[-1]
            for value in args[:2]:
                if is_path(value) and not inside(resolve(value, folder), writable):
                    refuse(event, value)
        elif event in READS:
            if args and is_path(args[0]) and inside(resolve(args[0]), secret):
                refuse(event, args[0])
        elif event in REFUSED or (event == "socket.connect" and isinstance(args[1], tuple)):
            refuse(event, "")

    return hook


def main() -> None:
    """Start the kernel. First argument: the policy as JSON; the others are the kernel's own."""
    policy, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    # Copy the connection file to where the kernel's user can read it.
    at = arguments.index("-f") + 1
    arguments[at] = shutil.copy(arguments[at], Path(policy["scratch"], "kernel.json"))
    if policy["user"]:
        become(policy["user"], policy["scratch"])
    limit(policy["memory_bytes"], policy["file_bytes"])
    os.chdir(policy["scratch"])
    from ipykernel.kernelapp import IPKernelApp

    sys.addaudithook(guard(policy["scratch"], policy["hidden"]))
    sys.argv = [sys.argv[0]]
    IPKernelApp.launch_instance(argv=[*map(str, arguments), "--log-level=40"])


if __name__ == "__main__":
    main()

"""Walls around a process that is about to run student code, made of what the system offers.

Linux with namespaces: a file system of its own (nothing but the Python environment, the handout and
the model, all read-only, and an empty ``/tmp``), no network, no other process in sight, no
privileges; when its first process ends, the kernel ends all others. Linux without them: Landlock,
where the kernel has it, and limits. Elsewhere: limits only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
from pathlib import Path

NEWUSER, NEWNS, NEWPID = 0x10000000, 0x00020000, 0x20000000
NEWNET, NEWIPC, NEWUTS = 0x40000000, 0x08000000, 0x04000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 38, 36
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(platform.machine())
CAPSET = {"x86_64": 126, "aarch64": 91}.get(platform.machine())
MOUNT_SETATTR, LANDLOCK = 442, 444  # the same on every architecture
# Calls by processor: its number, clone, socket, and what is refused (ptrace, mount, umount, pivot,
# unshare, setns, keys, bpf, perf, userfaultfd, other processes' memory, modules, kexec).
CALLS = {
    "x86_64": (
        *(0xC000003E, 56, 41),
        "101 165 166 155 272 308 248 249 250 321 298 323 310 311 175 313 246",
    ),
    "aarch64": (
        *(0xC00000B7, 220, 198),
        "117 40 39 41 97 268 217 218 219 280 241 282 270 271 105 273 104",
    ),
}
READ = 0b1101  # Landlock's: execute, read files and folders
ON_FILES = 0b1100000000000111  # the rights that a single file can have
FIRST_UID = 61184  # a range that no account uses
SYSTEM = "/usr /lib /lib64 /lib32 /bin /sbin /etc/ld.so.cache /etc/fonts /etc/localtime".split()
DEVICES = "null zero full random urandom".split()

libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments) -> int:
    """Call a C function; OSError if it fails."""
    arguments = [os.fsencode(one) if isinstance(one, str) else one for one in arguments]
    result = getattr(libc, name)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        _call("prctl", option, _long(value), _long(0), _long(0), _long(0))


def unshare(slot: int) -> bool:
    """Move this process into namespaces of its own; its next child is the first process there.

    Args:
        slot: number of this sandbox; as root it decides the user id.

    Returns:
        Whether the system allowed it.
    """
    if sys.platform != "linux" or PIVOT_ROOT is None:
        return False
    flags, uid, gid = NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS, os.getuid(), os.getgid()
    with contextlib.suppress(OSError):
        if os.geteuid() == 0:
            _call("unshare", flags)
            return True
    try:
        _call("unshare", flags | NEWUSER)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
    except OSError:
        return False
    return True


def new_root(readable: list[str], scratch_bytes: int) -> None:
    """Exchange the file system for an empty one that holds only ``readable``, and ``/tmp``.

    Raises:
        OSError: the system does not allow it.
    """
    _call("mount", None, "/", None, _long(MS_REC | MS_PRIVATE), None)
    root = "/tmp"  # covers the old one, which nobody can reach afterwards
    keep = {}
    for path in [*SYSTEM, *readable, *(f"/dev/{name}" for name in DEVICES)]:
        if os.path.exists(path):
            keep[path] = os.open(path, os.O_PATH)  # /tmp may hold some of them
    _tmpfs(root, 2**20, "755")
    for folder in ("/tmp", "/dev/shm"):
        os.makedirs(root + folder, 0o755)
        _tmpfs(root + folder, scratch_bytes, "1777")
    for path, descriptor in keep.items():
        target = root + path
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        source = f"/proc/self/fd/{descriptor}"
        if os.path.isdir(source):
            os.makedirs(target, 0o755, exist_ok=True)
        elif not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        _call("mount", source, target, None, _long(MS_BIND | MS_REC), None)
        if not path.startswith("/dev/"):
            _read_only(target)
        os.close(descriptor)
    os.makedirs(root + "/proc", 0o755, exist_ok=True)
    with contextlib.suppress(OSError):  # a container may hide a part of /proc, which forbids this
        _call("mount", "proc", root + "/proc", "proc", _long(MS_NOSUID | MS_NODEV), None)
    os.chdir(root)
    _call("syscall", _long(PIVOT_ROOT), ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    _call("umount2", ".", 2)  # MNT_DETACH: the old root
    _read_only("/", recursive=False)
    os.chdir("/tmp")


def _tmpfs(target: str, size: int, mode: str) -> None:
    options = f"size={size},mode={mode}".encode()
    _call("mount", "tmpfs", target, "tmpfs", _long(MS_NOSUID | MS_NODEV), options)


def _read_only(target: str, recursive: bool = True) -> None:
    attributes = (ctypes.c_uint64 * 4)(1 | 2, 0, 0, 0)  # MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
    flags = 0x8000 if recursive else 0  # AT_RECURSIVE
    _call(
        "syscall",
        _long(MOUNT_SETATTR),
        _long(-100),  # AT_FDCWD
        ctypes.c_char_p(os.fsencode(target)),
        _long(flags),
        ctypes.byref(attributes),
        _long(ctypes.sizeof(attributes)),
    )


def landlock(readable: list[str], writable: list[str]) -> bool:
    """Close the file system, TCP, and signals to processes outside, for good (Linux 5.13).

    Returns:
        Whether the kernel has Landlock; of its newer parts it uses those that are there.
    """
    version = libc.syscall(_long(LANDLOCK), None, _long(0), _long(1))
    if version < 1:
        return False
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    # What is governed: all rights on files that this version knows, TCP from 4, signals from 6.
    files = 2 ** (13 + (version > 1) + (version > 2) + (version > 4)) - 1
    fields = [files, 3 * (version > 3), 3 * (version > 5)]
    attributes = (ctypes.c_uint64 * 3)(*fields)
    size = 8 * (1 + (version > 3) + (version > 5))
    ruleset = _call("syscall", _long(LANDLOCK), ctypes.byref(attributes), _long(size), _long(0))
    # What is allowed below each path.
    devices = [f"/dev/{name}" for name in DEVICES]
    for rights, paths in ((READ, [*SYSTEM, "/proc", *readable]), (files, [*writable, *devices])):
        for path in filter(os.path.exists, paths):
            place = os.open(path, os.O_PATH)
            allowed = rights if os.path.isdir(path) else rights & ON_FILES & files
            rule = struct.pack("=Qi", allowed, place)
            _call("syscall", _long(LANDLOCK + 1), _long(ruleset), _long(1), rule, _long(0))
            os.close(place)
    _call("syscall", _long(LANDLOCK + 2), _long(ruleset), _long(0))
    os.close(ruleset)
    return True


def narrow() -> bool:
    """Refuse system calls that no answer needs, for good: namespaces, mounts, network sockets.

    Linux on the two common processors; needs that no privileges can be gained any more.

    Returns:
        Whether the system has such a filter and allowed this one.
    """
    # A table of calls, then a program for the kernel: (code, jump if true, if false, value).
    if sys.platform != "linux" or platform.machine() not in CALLS:
        return False
    load, equal, at_least, has_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse, allow = (answer, 0, 0, 0x50000 | 1), (answer, 0, 0, 0x7FFF0000)  # EPERM
    architecture, clone, socket, refused = CALLS[platform.machine()]
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), refuse, (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), refuse]
    for number in [*map(int, refused.split()), *range(425, 434), MOUNT_SETATTR]:
        program += [(equal, 0, 1, number), refuse]
    # clone3 hides its flags: as if there were none, so that libraries take clone.
    program += [(equal, 0, 1, 435), (answer, 0, 0, 0x50000 | 38)]
    program += [(equal, 0, 4, clone), (load, 0, 0, 16), (has_bit, 0, 1, NEWUSER), refuse]
    program += [(load, 0, 0, 0), (equal, 0, 3, socket), (load, 0, 0, 16), (equal, 1, 0, 1)]
    program += [refuse, allow]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    code = ctypes.create_string_buffer(code)  # has to live until the call
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    with contextlib.suppress(OSError):
        _call("prctl", 22, _long(2), whole)
        return True
    return False


def drop_privileges(slot: int) -> None:
    """Give up every privilege for good; as root, become a user that owns nothing."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(*[FIRST_UID + slot % 4000] * 3)
        os.setresuid(*[FIRST_UID + slot % 4000] * 3)
    if CAPSET is not None and sys.platform == "linux":
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        _call("syscall", _long(CAPSET), ctypes.byref(header), ctypes.byref(data))
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def limit(memory_bytes: int, file_bytes: int, processes: int = 256) -> None:
    """Set the operating system's limits on this process, where it has them."""
    import resource

    limits = {
        "RLIMIT_DATA": memory_bytes,
        "RLIMIT_FSIZE": file_bytes,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 1024,
        "RLIMIT_NPROC": processes,
        "RLIMIT_CPU": 3600,
    }
    for name, value in limits.items():
        # A stricter limit may be set already, or this system has none of the kind.
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, value))


def end_children() -> None:
    """End every process that this one has inherited from a child that ended (Linux)."""
    while True:
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
        except OSError:
            return
        for child in children:
            with contextlib.suppress(OSError):
                os.kill(int(child), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return

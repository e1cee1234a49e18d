"""One sandbox with one student's code: requests go in pickled, plain values come out.

Every wait has an end, and ending a sandbox ends all of its processes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import secrets
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from assignments import checks
from assignments.inside import wire

IDLE = 50  # on the busiest machine a process that wants to run gets more than 1/50 of the clock
PATIENCE = 4  # limits count processor time, or the clock's time divided by this if that is more


class Lost(Exception):
    """Student code ended its sandbox, or was ended; the message says why."""


class _Models(pickle.Pickler):
    """Writes the models of ``checks`` by name."""

    def persistent_id(self, value: object) -> tuple | None:
        for key, model in checks.models._MODELS.items():
            if value is model:
                return ("tiny", *key) if key else ("the_model",)
        return None


@dataclass
class Session:
    """One sandbox with one student's code in it."""

    channel: socket.socket
    worker: int
    memory_bytes: int
    scratch: tempfile.TemporaryDirectory
    spent: float = 0.0  # seconds of the last request

    def ask(self, do: str, seconds: float, **request: object) -> dict:
        """Send a request and wait for the reply.

        Args:
            seconds: of processor time; a busy machine costs nobody anything.

        Raises:
            Lost: no reply in time, or the sandbox ended. It is gone then.
        """
        number = secrets.token_hex(8)
        buffer = io.BytesIO()
        _Models(buffer).dump({"id": number, "do": do} | request)
        try:
            wire.send(self.channel, buffer.getvalue())
            body = self._wait(seconds)
            # The student may have written it.
            reply = wire.parse(body)
            if reply.get("id") != number:
                raise wire.BrokenMessage("an answer that nobody asked for")
            if error := reply.get("error"):
                if not isinstance(error, list):
                    raise wire.BrokenMessage("an error that is none")
                reply["error"] = [str(one)[:500] for one in [*error, "", ""][:2]]
            return reply
        except TimeoutError as error:
            self.end()
            raise Lost(f"took more than {seconds:.0f} seconds and was ended") from error
        except wire.BrokenMessage as error:
            self.end()
            raise Lost(f"sent something else than an answer ({error})") from error
        except (EOFError, OSError) as error:
            self.end()
            raise Lost("ended its process (out of memory, or on purpose)") from error

    def _wait(self, seconds: float) -> bytes:
        """The reply; a request that takes too long is interrupted, then it has a little time."""
        self._start(seconds)
        try:
            body = wire.receive(self.channel, self.clock + PATIENCE * seconds, self._watch)
            self._count()
            return body
        except TimeoutError:
            before = max(self.spent, seconds)  # one that slept has used up its time as well
        with contextlib.suppress(OSError):
            os.kill(self.worker, 2)
        self._start(3)
        try:
            reply = wire.receive(self.channel, self.clock + 3 * PATIENCE, self._watch)
            self._count()
        finally:
            self.spent += before
        text = f"took more than {seconds:.0f} seconds and was interrupted"
        return json.dumps(wire.parse(reply) | {"error": ["TimeoutError", text]}).encode()

    def _start(self, seconds: float) -> None:
        """Begin to count the time of a request that may take so many seconds."""
        self.clock, self.used, self.seconds = time.monotonic(), self._use()[0], seconds
        self.spent = 0.0

    def _use(self) -> tuple[float, int]:
        """Processor time and memory of the sandbox's processes together."""
        cpu, memory = 0.0, 0
        with contextlib.suppress(psutil.Error):
            for process in self._processes():
                times = process.cpu_times()
                cpu += times.user + times.system
                memory += process.memory_info().rss
        return cpu, memory

    def _processes(self) -> list[psutil.Process]:
        """The sandbox's processes. To look for children reads about every process there is."""
        worker = psutil.Process(self.worker)
        return [worker] if _alone(self.worker) else [worker, *worker.children(recursive=True)]

    def _own_memory(self) -> int:
        """Memory of the sandbox's processes, where what several share counts once; 0 if unknown.

        A process that was forked begins with all of its parent's pages. Asking takes longer.
        """
        with contextlib.suppress(psutil.Error, AttributeError):
            return sum(process.memory_full_info().pss for process in self._processes())
        return 0

    def _count(self) -> int:
        """Update the time of this request, and return the memory in use."""
        cpu, memory = self._use()
        self.cpu = cpu - self.used
        self.spent = max(self.cpu, (time.monotonic() - self.clock) / PATIENCE)
        return memory

    def _watch(self) -> None:
        """End a sandbox that uses too much memory, a request that uses too much time."""
        memory = self._count()
        if memory > self.memory_bytes:
            memory = self._own_memory() or memory
        if memory > self.memory_bytes:
            self.end()
            raise Lost(f"used {memory / 2**30:.1f} GB of memory and was ended")
        # Past its time and hardly at work: it sleeps, and no busy machine is to blame.
        clock = time.monotonic() - self.clock
        asleep = clock > self.seconds and self.cpu < clock / IDLE
        if asleep or self.spent > self.seconds:
            raise TimeoutError

    def end(self) -> None:
        """End every process of this sandbox."""
        with contextlib.suppress(OSError):
            os.kill(self.worker, 9)
        self.channel.close()
        self.scratch.cleanup()


def _alone(pid: int) -> bool:
    """Whether a process has no child, for sure: where it has threads, each has its own children."""
    with contextlib.suppress(OSError):  # no Linux, or one that does not say
        if os.listdir(f"/proc/{pid}/task") == [str(pid)]:
            return not Path(f"/proc/{pid}/task/{pid}/children").read_bytes()
    return False

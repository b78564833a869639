"""A child process that leaves the machine's network and serves tasks: both sides.

The process that owns a :class:`Child` stays where it is. The child moves into namespaces of its own before its first
task, and what it builds ends with it: when it is closed, and when the thread that made it ends in any way.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from fastpath.errors import UnavailableError
from fastpath.netns import namespace

_PR_SET_PDEATHSIG = 1

Own = TypeVar("Own", bound="Child")


class Child:
    """The parent's side. Not to be shared between threads."""

    def __init__(self, module: str, name: str, verb: str) -> None:
        """Starts the child.

        Args:
            module: its ``main()`` calls :func:`serve`.
            name, verb: who it is and what it does, for errors.

        Raises:
            UnavailableError: it cannot have namespaces of its own here.
        """
        self._name, self._verb = name, verb
        env = dict(
            os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p),
            PATH=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            # a process with threads may not enter a user namespace, and numpy's libraries start some
            OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1",
        )
        self._child = subprocess.Popen([sys.executable, "-c", f"from {module} import main; main()"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, bufsize=-1)
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def ask(self, task: object, progress: Callable[[int], None] | None = None) -> Any:
        """The child's answer to a task.

        Raises:
            UnavailableError: the kernel refuses, or the child has ended.
        """
        try:
            assert self._child.stdin is not None
            pickle.dump(task, self._child.stdin, pickle.HIGHEST_PROTOCOL)
            self._child.stdin.flush()
            while True:
                kind, value = self._receive()
                if kind == "done":
                    return value
                if progress is not None:
                    progress(value)
        except UnavailableError:
            raise
        except BaseException:
            self.close()  # in the middle of a task the child is of no more use
            raise

    def _receive(self) -> tuple[str, Any]:
        assert self._child.stdout is not None
        try:
            kind, value = pickle.load(self._child.stdout)
        except (EOFError, pickle.UnpicklingError):
            code = self._child.wait()
            raise UnavailableError(f"the {self._name}'s process ended (exit code {code})") from None
        if kind == "unavailable":
            raise UnavailableError(f"the kernel cannot be {self._verb} here: {value}")
        if kind == "failed":
            raise RuntimeError(f"the {self._name}'s process failed:\n{value}")
        return kind, value

    def close(self) -> None:
        """Ends the child and with it everything that it built."""
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass
        self._child.kill()
        self._child.wait()

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def serve(work: Callable[[Any, Callable[[int], None]], object], settle: Callable[[], None] | None = None) -> None:
    """The child's side: answers tasks until standard input ends.

    Args:
        work: a task, and what to call with its progress -> the answer.
        settle: called once, in the namespaces, before the first task.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def tell(kind: str, value: object) -> None:
        pickle.dump((kind, value), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()

    try:
        namespace.unshare()
    except UnavailableError as error:
        tell("unavailable", str(error))
        return
    if settle is not None:
        settle()
    tell("ready", None)
    while True:
        try:
            task = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            tell("done", work(task, lambda done: tell("progress", done)))
        except UnavailableError as error:
            tell("unavailable", str(error))
        except BrokenPipeError:
            return
        except Exception:
            tell("failed", traceback.format_exc())

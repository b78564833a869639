"""The ``fastpath`` command: thin commands over the public API, one file each.

Invariants: a command imports what it needs when it runs, so that ``--help``, ``trace`` and ``check`` never load
numba; results go to standard output, progress and errors to standard error; a user's mistake is one clear
message and exit code 2, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fastpath.errors import FastpathError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: the words after ``fastpath``; None takes them from the process.

    Returns:
        0 on success, 1 where a check found something, 2 for a usage error or bad input, 130 when interrupted.
    """
    from fastpath.cli.app import app

    try:
        app(args=None if arguments is None else list(arguments), prog_name="fastpath")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else EXIT_ERROR if stop.code else 0
    except FastpathError as error:
        print(f"fastpath: {error}", file=sys.stderr)
        code = EXIT_ERROR
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = 0
    except MemoryError:
        print("fastpath: out of memory; use fewer packets (-n) or a larger machine", file=sys.stderr)
        code = EXIT_ERROR
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"fastpath: {where}{error.strerror or error}", file=sys.stderr)
        code = EXIT_ERROR
    return _flush(code)


def _flush(code: int) -> int:
    """Flush standard output; a reader that has gone away (``| head``) is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more on its way out: give it somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code

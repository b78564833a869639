"""The one place that knows numba: options of every kernel and the folder of their compiled code.

numba does not notice that a helper in another file was edited, so the cache folder's name holds a hash of all kernel
sources and of the versions that compiled them: a cache made by other sources is never read. ``FASTPATH_CACHE_DIR``
moves it; the default is the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def _fingerprint() -> str:
    from importlib.metadata import version

    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    for package in ("numba", "llvmlite", "numpy"):
        digest.update(version(package).encode())
    digest.update(platform.python_version().encode())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where compiled kernels are kept: one folder for each state of the kernel sources."""
    root = os.environ.get("FASTPATH_CACHE_DIR")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fastpath"
    return base / f"kernels-{_fingerprint()}"


if "NUMBA_CACHE_DIR" not in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = str(cache_folder())

import numba  # noqa: E402

numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]  # type: ignore[attr-defined]


def kernel(function: F) -> F:
    """Compiles a function that takes arrays and gives arrays: no Python objects, the GIL released, code cached."""
    compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy", boundscheck=None)(function)
    return cast(F, compiled)


def helper(function: F) -> F:
    """Compiles a function that kernels call; it is built into each of them."""
    return kernel(function)

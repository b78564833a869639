"""The one place that knows numba: options of every kernel and the folder of their compiled code.

numba does not notice that a helper in another file was edited, so the cache folder's name holds a hash of all kernel
sources, of the versions that compiled them, of numba's options, and of the processor with its features: a cache made by
other sources, or on another processor that shares the home folder, is never read. ``FASTPATH_CACHE_DIR`` moves it; else
it is in numba's own ``NUMBA_CACHE_DIR`` or the user's cache folder. numba's setting is left alone for other code.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
import numba

F = TypeVar("F", bound=Callable[..., Any])


def processor() -> str:
    """The processor that code is compiled for: LLVM's name for it, and its features."""
    features = llvmlite.binding.get_host_cpu_features()
    return " ".join([llvmlite.binding.get_host_cpu_name(), *sorted(f for f, there in features.items() if there)])


def fingerprint(sources: Path, cpu: str) -> str:
    """A hash of all that compiled code depends on.

    Args:
        sources: folder of the kernels' sources.
        cpu: as :func:`processor` gives it.
    """
    from importlib.metadata import version

    digest = hashlib.sha256()
    for path in sorted(sources.glob("*.py")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    for package in ("numba", "llvmlite", "numpy"):
        digest.update(f"{package} {version(package)}\n".encode())
    digest.update(f"{platform.python_version()}\n{cpu}\n".encode())
    for name in sorted(os.environ):
        if name.startswith("NUMBA_") and name != "NUMBA_CACHE_DIR":
            digest.update(f"{name}={os.environ[name]}\n".encode())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where compiled kernels are kept: one folder for each state of the sources, versions, options and processor."""
    root = os.environ.get("FASTPATH_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastpath"
    return base / f"kernels-{fingerprint(Path(__file__).parent, processor())}"


FOLDER = cache_folder()


def kernel(function: F) -> F:
    """Compiles a function that takes arrays and gives arrays: no Python objects, the GIL released, code cached."""
    return _compiled(function)


def helper(function: F) -> F:
    """Compiles a function that kernels call. It may make no arrays, and counts no references to those it is given: that
    would be two atomic operations for each array of a group at each call, microseconds for each packet."""
    return _compiled(function, _nrt=False)


def _compiled(function: F, **options: Any) -> F:
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(FOLDER)  # read when caching is enabled, which the decorator does
    try:
        compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy", boundscheck=None, **options)(function)
    finally:
        config.CACHE_DIR = before
    return cast(F, compiled)

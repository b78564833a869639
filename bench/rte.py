"""DPDK's rte_acl as a peer: builds its driver where gcc and Debian's libdpdk-dev are there, and runs it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import weakref
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from bench.flatten import FIELDS, FirstMatch

Array = npt.NDArray[Any]

SOURCE = Path(__file__).parent / "rte_acl" / "driver.c"
ALGORITHMS = ("avx2", "avx512")
BATCH = 256
"""Headers of one call; of 32 to 1,024 the fastest or nearly so on all rulesets."""

HEADER = np.dtype({
    "names": ["proto", "src", "dst", "sport", "dport", "iif", "oif", "state", "local"],
    "formats": ["u1", ">u4", ">u4", ">u2", ">u2", "u1", "u1", "u1", "u1"],
    "offsets": [0, 4, 8, 12, 14, 16, 17, 18, 19], "itemsize": 20,
})


class UnavailableError(Exception):
    """rte_acl cannot be measured here; the message says why."""


@lru_cache(maxsize=1)
def driver() -> Path:
    """The driver's program, built where it is not there yet.

    Raises:
        UnavailableError: no compiler, no DPDK, or the build fails.
    """
    if shutil.which("gcc") is None or shutil.which("pkg-config") is None:
        raise UnavailableError("rte_acl is left out: gcc and pkg-config are needed to build its driver")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libdpdk"], capture_output=True, text=True)
    if flags.returncode:
        raise UnavailableError("rte_acl is left out: pkg-config finds no libdpdk (Debian: apt install libdpdk-dev)")
    key = hashlib.sha256(SOURCE.read_bytes() + flags.stdout.encode()).hexdigest()[:12]
    place = Path(tempfile.gettempdir()) / f"fastpath-bench-{os.getuid()}"
    place.mkdir(parents=True, exist_ok=True)
    program = place / f"rte_acl-{key}"
    if not program.exists():
        command = ["gcc", "-O3", "-o", str(program) + ".new", str(SOURCE), *flags.stdout.split()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UnavailableError(f"rte_acl is left out: its driver does not compile:\n{done.stderr}")
        Path(str(program) + ".new").rename(program)
    return program


class Classifier:
    """A process with rte_acl's tables of some rules, which classifies when asked to; it ends with this object.

    Attributes:
        build_seconds, table_bytes: of the tables.
    """

    def __init__(self, rules: FirstMatch) -> None:
        """Starts the process and builds the tables.

        Args:
            rules: boxes; address intervals that are no prefixes are cut into prefixes.

        Raises:
            UnavailableError: no driver, or tables that rte_acl cannot build.
        """
        eal = ["-l", str(min(os.sched_getaffinity(0))), "--no-shconf", "--no-huge", "-m", "8192", "--no-pci",
               "--no-telemetry", "--log-level", "error", "--force-max-simd-bitwidth=512"]
        program = driver()
        self._folder = tempfile.TemporaryDirectory()
        self._errors = tempfile.TemporaryFile("w+")
        path = self._path("rules")
        _records(rules).tofile(path)
        self._process = subprocess.Popen([str(program), *eal, "--", path], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._errors, text=True)
        weakref.finalize(self, _stop, self._process, self._folder)
        words = self._answer("build").split()
        self.build_seconds, self.table_bytes = float(words[0]), int(words[1])

    def load(self, headers: Array) -> None:
        """Takes headers, uint32 of shape (n, 9) in the order of FIELDS, which the next passes classify."""
        at = np.zeros(len(headers), HEADER)
        for i, name in enumerate(FIELDS):
            at[name] = headers[:, i]
        at.tofile(self._path("headers"))
        self._ask(f"headers {self._path('headers')}")

    def run(self, algorithm: str, batch: int = BATCH) -> float:
        """One pass over all headers -> seconds.

        Args:
            algorithm: ``avx512``, ``avx2`` or ``scalar``.
            batch: headers of one call.

        Raises:
            UnavailableError: an algorithm that this processor lacks.
        """
        return float(self._ask(f"pass {algorithm} {batch}"))

    def found(self) -> Array:
        """What the last pass found: rule ids, int32, -1 where nothing matched."""
        self._ask(f"results {self._path('results')}")
        return np.fromfile(self._path("results"), np.uint32).astype(np.int64).astype(np.int32) - 1

    def _path(self, name: str) -> str:
        return os.path.join(self._folder.name, name)

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:  # it has ended; its last words say why
            pass
        return self._answer(line.split()[0])

    def _answer(self, word: str) -> str:
        """The rest of the next line that begins with a word."""
        output: IO[str] | None = self._process.stdout
        assert output is not None
        for line in output:
            first, _, rest = line.strip().partition(" ")
            if first == word:
                return rest
            if first == "no":
                raise UnavailableError(f"rte_acl: {rest}")
        self._errors.seek(0)
        raise UnavailableError(f"rte_acl has ended: {self._errors.read().strip().splitlines()[-1:]}")


def _stop(process: subprocess.Popen[str], folder: tempfile.TemporaryDirectory[str]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.close()
    except OSError:
        pass
    process.wait()
    folder.cleanup()


def _records(rules: FirstMatch) -> Array:
    """The driver's rules: low ends, high ends, and the rule's id plus one, as 0 means no match."""
    rows: list[Array] = []
    prefixes = [_is_prefix(rules.lo[:, i], rules.hi[:, i]) for i in (0, 1)]
    for row, (low, high, rule) in enumerate(zip(rules.lo, rules.hi, rules.rule.tolist(), strict=True)):
        if prefixes[0][row] and prefixes[1][row]:
            rows.append(np.concatenate([low, high, [rule + 1]]))
            continue
        for a, b in _prefixes(int(low[0]), int(high[0])):
            for c, d in _prefixes(int(low[1]), int(high[1])):
                rows.append(np.concatenate([[a, c], low[2:], [b, d], high[2:], [rule + 1]]))
    return np.array(rows, np.uint32)


def _is_prefix(low: Array, high: Array) -> Array:
    size = high.astype(np.uint64) - low + np.uint64(1)
    found: Array = (size & (size - np.uint64(1)) == 0) & (low & (size - np.uint64(1)) == 0)
    return found


def _prefixes(low: int, high: int) -> list[tuple[int, int]]:
    out = []
    while low <= high:
        size = low & -low or 1 << 32
        while low + size - 1 > high:
            size >>= 1
        out.append((low, low + size - 1))
        low += size
    return out

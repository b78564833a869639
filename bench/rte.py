"""DPDK's rte_acl as a peer: builds its driver where gcc and Debian's libdpdk-dev are there, and runs it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

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


@dataclass(frozen=True)
class Timing:
    """What the driver measured.

    Attributes:
        rule: rule ids, int32, -1 where nothing matched.
        seconds: of each pass over all headers.
        build_seconds, table_bytes: of the tables.
        algorithm: the one that ran.
    """

    rule: Array
    seconds: tuple[float, ...]
    build_seconds: float
    table_bytes: int
    algorithm: str

    @property
    def median(self) -> float:
        """Seconds of the median pass."""
        return median(self.seconds)


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


def classify(rules: FirstMatch, headers: Array, algorithm: str, rounds: int = 5, batch: int = BATCH) -> Timing:
    """Classifies headers.

    Args:
        rules: boxes; address intervals that are no prefixes are cut into prefixes.
        headers: uint32 of shape (n, 9), in the order of FIELDS.
        algorithm: ``avx512``, ``avx2`` or ``scalar``.
        rounds: passes that are timed, behind one that is not.
        batch: headers of one call.

    Raises:
        UnavailableError: no driver, an algorithm that this processor lacks, or tables that rte_acl cannot build.
    """
    program = driver()
    at = np.zeros(len(headers), HEADER)
    for i, name in enumerate(FIELDS):
        at[name] = headers[:, i]
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("rules", "headers", "results")]
        _records(rules).tofile(paths[0])
        at.tofile(paths[1])
        eal = ["-l", str(min(os.sched_getaffinity(0))), "--no-shconf", "--no-huge", "-m", "8192", "--no-pci",
               "--no-telemetry", "--log-level", "error", "--force-max-simd-bitwidth=512"]
        done = subprocess.run([str(program), *eal, "--", *paths, algorithm, str(batch), str(rounds)],
                              capture_output=True, text=True)
        if done.returncode:
            raise UnavailableError(f"rte_acl, {algorithm}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
        found = np.fromfile(paths[2], np.uint32)
    words = [line.split() for line in done.stdout.splitlines()]
    built = next(w for w in words if w and w[0] == "build")
    seconds = tuple(float(w[1]) for w in words if w and w[0] == "round")
    return Timing(found.astype(np.int64).astype(np.int32) - 1, seconds, float(built[1]), int(built[2]), algorithm)


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

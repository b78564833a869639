"""What figures depend on: processor, caches, vector instructions, clock, versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

CPU = Path("/sys/devices/system/cpu")
VECTORS = ("avx2", "avx512f", "avx512bw", "avx512vl", "avx512vbmi", "avx10.1", "asimd", "sve")
"""Flags of /proc/cpuinfo that numba and rte_acl make use of; AVX-512 is of use to rte_acl with F, BW and VL."""


def about() -> dict[str, object]:
    """The machine, as far as it is known here."""
    info = _cpuinfo()
    flags = info.get("flags", info.get("Features", "")).split()
    return {
        "processor": info.get("model name", platform.machine()),
        "family/model/stepping": "/".join(info.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "cores": os.cpu_count(), "vectors": " ".join(f for f in VECTORS if f in flags) or "none known",
        "caches": _caches(), "clock": _clock("hypervisor" in flags), "python": platform.python_version(),
        "numpy": version("numpy"), "numba": version("numba"),
    }


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _caches() -> str:
    found = []
    for index in sorted((CPU / "cpu0" / "cache").glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        found.append(f"L{level}{'' if kind == 'Unified' else kind[:1].lower()} {size}")
    return " ".join(found) or "not known"


def _clock(virtual: bool) -> str:
    """Governor and turbo: what a machine says of them, mostly nothing where it is a virtual one."""
    governor = _read(CPU / "cpu0" / "cpufreq" / "scaling_governor")
    boost, no_turbo = _read(CPU / "cpufreq" / "boost"), _read(CPU / "intel_pstate" / "no_turbo")
    turbo = {"1": "on", "0": "off"}.get(boost) or {"0": "on", "1": "off"}.get(no_turbo)
    if not governor and turbo is None:
        return "not known" + (" (a virtual machine)" if virtual else "")
    return f"governor {governor or 'not known'}, turbo {turbo or 'not known'}"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

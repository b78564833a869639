"""The cost model: how many nanoseconds the kernel spends on what.

A packet costs the sum of

* its *way*: routing and the hooks' own work up to where it ends (``base``), each builtin chain that it walks
  (``hook``), what connection tracking does with its state (``track``), what NAT adds to that (``nat``);
* for every rule that it examines, the tests up to the first that fails, and counting and target where all hold
  (``rules``: the parameters that ``steps`` names);
* memory: rules are read one after the other, so that a walk over more of them than the caches hold pays for each
  line of 64 bytes beyond (``lines``).

Invariant: all figures are of one machine, one kernel and one core with nothing else to do. They are for comparing hosts
and finding limits; another machine's figures come of ``fastpath capacity calibrate``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastpath.capacity.cpu.steps import HEADER, Backend, Weights
from fastpath.errors import FastpathError, HostError

LABEL = "fastpath cost model"
VERSION = 1
BACKENDS: tuple[Backend, ...] = ("legacy", "nft")

BASE = ("prerouting", "route", "input", "forward", "postrouting", "output", "leave", "loop")
"""Where ways end: in PREROUTING, in routing, in INPUT, in FORWARD, behind POSTROUTING; of the host's own packets in
OUTPUT, behind POSTROUTING, and in INPUT again."""

TRACK = ("new", "established", "invalid", "untracked")


@dataclass(frozen=True)
class Fit:
    """How well the parameters explain what was measured: relative errors of the patterns' slopes, and the half
    distance between quartiles of repeated readings, relative as well."""

    patterns: int
    median_error: float
    worst_error: float
    worst: str
    spread: float


@dataclass(frozen=True)
class BackendCosts:
    """One back end's figures, in nanoseconds.

    Attributes:
        base: by name of ``BASE``: the way to there, without any table.
        hook: by table: walking one of its builtin chains, empty.
        track: by name of ``TRACK``: connection tracking, where the rules use it.
        nat: ``new``: what the nat hooks add for a flow's first packet, chains left out; ``known``: for later packets.
        rules: parameters of tests, counting and targets.
        switch_ns: for a rule whose tests are other ones than those of the rule before it.
        cache_bytes: memory of rules that is read at no extra cost.
        line_ns: for each 64 bytes beyond.
        deep_bytes, deep_ns: likewise beyond the next cache, in addition.
        fit: how well it fits.
    """

    base: Mapping[str, float]
    hook: Mapping[str, float]
    track: Mapping[str, float]
    nat: Mapping[str, float]
    rules: Mapping[str, float]
    switch_ns: float
    cache_bytes: int
    line_ns: float
    deep_bytes: int
    deep_ns: float
    fit: Fit | None = None

    def ns(self, weights: Weights) -> float:
        """The sum of weighted parameters; one that was never measured takes a :meth:`stand_in`."""
        return sum(weight * self.rules[name] if name in self.rules else weight * self.stand_in(name)
                   for name, weight in weights)

    def known(self, weights: Weights) -> bool:
        """Whether every parameter was measured; of a test, whether it fails or holds."""
        def measured(name: str) -> bool:
            outcome, _, kind = name.partition(":")
            tests = (f"fail:{kind}", f"pass:{kind}") if outcome in ("fail", "pass") else ()
            return name in self.rules or any(test in self.rules for test in tests)

        return all(measured(name) for name, _ in weights)

    def stand_in(self, name: str) -> float:
        """A figure for what was not measured: ``fail:`` for ``pass:`` and the other way round, for an ipset the dearest
        type that was measured, for a module the median of the modules, for a target that of the targets."""
        if name.startswith(("fail:", "pass:")):
            outcome, _, kind = name.partition(":")
            other = f"{'pass' if outcome == 'fail' else 'fail'}:{kind}"
            if other in self.rules:
                return self.rules[other]
            like = [v for k, v in self.rules.items() if k.startswith("fail:set:")] if kind.startswith("set") else []
            if like:
                return max(like)
            like = [v for k, v in self.rules.items() if k.startswith("fail:") and k[5:] not in HEADER]
        else:
            like = [v for k, v in self.rules.items() if k.isupper()]
        return sorted(like)[len(like) // 2] if like else 0.0

    def memory_ns(self, bytes_: Any) -> Any:
        """What reading so many bytes of rules costs beyond the parameters; a number or an array."""
        import numpy as np

        over = np.maximum(0.0, bytes_ - self.cache_bytes) * (self.line_ns / 64)
        return over + np.maximum(0.0, bytes_ - self.deep_bytes) * (self.deep_ns / 64)


@dataclass(frozen=True)
class CostModel:
    """A calibration of both back ends.

        >>> import fastpath as fp
        >>> model = fp.capacity.CostModel.default()
        >>> model.backends["legacy"].rules["fail:src"] < model.backends["legacy"].rules["fail:conntrack"]
        True

    Attributes:
        machine: what it was measured on: ``cpu``, ``kernel``, ``iptables``, ``date``, ``cores``.
        backends: figures by back end.
    """

    machine: Mapping[str, str]
    backends: Mapping[str, BackendCosts] = field(default_factory=dict)

    @classmethod
    @cache
    def default(cls) -> CostModel:
        """The calibration that comes with fastpath."""
        return cls.from_dict(json.loads(files("fastpath.capacity").joinpath("data/calibration.json").read_text()),
                             "the calibration that comes with fastpath")

    @classmethod
    def load(cls, path: str | Path) -> CostModel:
        """A calibration that :meth:`save` wrote.

        Raises:
            HostError: no such file, or not a calibration.
        """
        try:
            data = json.loads(Path(path).read_text())
        except OSError as error:
            raise HostError(f"{path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise HostError(f"{path} is no calibration ({error}): fastpath capacity calibrate --out writes one"
                            ) from None
        return cls.from_dict(data, str(path))

    @classmethod
    def from_dict(cls, data: Any, where: str = "calibration") -> CostModel:
        """The inverse of :meth:`to_dict`.

        Raises:
            HostError: it is none, or of another version.
        """
        if not isinstance(data, dict) or data.get("label") != LABEL:
            raise HostError(f"{where} is no calibration: fastpath capacity calibrate --out writes one")
        if data.get("version") != VERSION:
            raise HostError(f"{where} is a calibration of version {data.get('version')}, this fastpath reads version "
                            f"{VERSION}: calibrate again")
        try:
            backends = {
                name: BackendCosts(**(each | {"fit": Fit(**each["fit"]) if each.get("fit") else None}))
                for name, each in data["backends"].items()
            }
            for each in backends.values():
                missing = [name for name in BASE if name not in each.base]
                if missing:
                    raise KeyError(f"base {missing[0]}")
            return cls(data["machine"], backends)
        except (KeyError, TypeError, AttributeError) as error:
            raise HostError(f"{where} is a damaged calibration: {error} is missing or wrong") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"label": LABEL, "version": VERSION, "machine": dict(self.machine),
                "backends": {name: _plain(each) for name, each in self.backends.items()}}

    def save(self, path: str | Path) -> None:
        """Writes what :meth:`load` reads."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    def backend(self, name: str) -> BackendCosts:
        """One back end's figures.

        Raises:
            FastpathError: the calibration has none of that name.
        """
        if name not in self.backends:
            raise FastpathError(f"the calibration has no back end {name!r}; it has {', '.join(self.backends)}")
        return self.backends[name]

    def __str__(self) -> str:
        m = self.machine
        cpu, kernel, iptables, date = (m.get(name, "?") for name in ("cpu", "kernel", "iptables", "date"))
        return f"{cpu}, Linux {kernel}, iptables {iptables}, {date}"


def _plain(costs: BackendCosts) -> dict[str, Any]:
    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, Mapping):
            return {k: rounded(v) for k, v in value.items()}
        return value

    plain: dict[str, Any] = rounded(asdict(costs))
    return plain

"""What a sweep finds: a row for every engine and size, and where the curves bend and budgets break."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One host.

    Attributes:
        engine: the Docker engine, or whatever the hosts differ by besides their size.
        size: networks, containers, ports, rules: whatever grows.
        backend: ``legacy`` or ``nft``.
        rules: rules in all tables.
        restore_bytes: length of what ``iptables-restore`` reads.
        kernel_bytes: memory of the rules in the kernel, one copy, as legacy iptables lays them out.
        mean_ns, p50_ns, p99_ns: nanoseconds for each packet.
        rules_examined: rules examined for each packet, on average.
        table_bytes: memory of fastpath's own decision tables; None where they were not compiled.
        compile_seconds: how long compiling them took; None likewise.
        seconds: how long this row took to find.
    """

    engine: str
    size: float
    backend: str
    rules: int
    restore_bytes: int
    kernel_bytes: int
    mean_ns: float
    p50_ns: float
    p99_ns: float
    rules_examined: float
    table_bytes: int | None
    compile_seconds: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Knee:
    """Where an engine's curve of mean_ns bends: up to ``size`` cost grows by ``before`` ns for each unit of size,
    beyond by ``after``. ``size`` is None where one line describes it."""

    engine: str
    size: float | None
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """The size at which an engine breaks a budget; None where no size up to the largest does.

    ``budget`` is in ns for each packet, ``what`` says of which column (``mean_ns``, ``p99_ns``) and why.
    """

    engine: str
    budget: float
    what: str
    size: float | None


@dataclass(frozen=True)
class SweepResult:
    """A sweep.

    Attributes:
        name: what grows, for people: ``networks``.
        rows: by engine, then by size.
        knees: one an engine.
        crossings: one for each engine and budget.
        calibration: whose figures these are.
        seconds: how long the sweep took.
    """

    name: str
    rows: tuple[SweepRow, ...]
    knees: tuple[Knee, ...]
    crossings: tuple[Crossing, ...]
    calibration: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.name, "calibration": self.calibration, "seconds": self.seconds,
            **{name: [asdict(each) for each in getattr(self, name)] for name in ("rows", "knees", "crossings")},
        }

    def to_arrow(self) -> pa.Table:
        """The rows as a table, one column for each field of :class:`SweepRow`."""
        import pyarrow as pa

        return pa.Table.from_pylist([asdict(row) for row in self.rows])

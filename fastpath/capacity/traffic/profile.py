"""Traffic profiles: ``profile.yaml``, and what it may say.

A profile is a list of classes of connections:

    name: a shop
    growth: 1.0                     # factor on all rates
    classes:
      - name: web                   # its name in charts and tables
        from: internet              # who opens the connections (see below)
        to: host                    # to whom
        port: 443                   # destination port, before DNAT (tcp, udp, sctp)
        protocol: tcp               # tcp (the default), udp, icmp, sctp, gre, or a protocol's number
        connections: 300            # new connections per second
        packets: 24                 # packets of a connection, both directions together
        size: 700                   # bytes of an IP packet, on average
        duration: 12                # seconds; or {distribution: lognormal, mean: 12, median: 3}
        sources: 5000               # how many different addresses open connections
        destinations: 1             # to how many different addresses, each as often
        growth: 2                   # factor on this class's rate
        answered: 0.99              # part that gets an answer
        endings: {fin: 0.95, rst: 0.04, silent: 0.01}

``from`` and ``to`` are one of: ``internet``; ``host`` (as ``to``: the address of the interface with the default route);
an interface of the host, such as ``docker0`` (the addresses of its subnet); an address or a network in CIDR form; the
name of a container (hosts from a topology), or of a Docker network by its interface. Only ``from``, ``to`` and
``connections`` are required, and ``port`` for the protocols that have ports.

Every error names the file, the path in it and the value, and says what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fastpath.capacity.connections.lifetimes import ConnectionClass
from fastpath.capacity.durations import Duration
from fastpath.errors import FastpathError

if TYPE_CHECKING:
    from fastpath.capacity.traffic.packets import Traffic
    from fastpath.host.model import Host

PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "sctp": 132}
WITH_PORTS = ("tcp", "udp", "sctp")
SIZES = (28, 65_515)


class ProfileError(FastpathError):
    """A profile that cannot be read; the message starts with the file and the path in it."""


class _Endings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    fin: float = Field(0.0, ge=0, le=1)
    rst: float = Field(0.0, ge=0, le=1)
    silent: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> _Endings:
        if abs(self.fin + self.rst + self.silent - 1) > 1e-6:
            raise ValueError(f"fin, rst and silent add up to {self.fin + self.rst + self.silent:g}; they should make 1")
        return self


class _Class(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, arbitrary_types_allowed=True)

    source: str = Field(alias="from", min_length=1)
    to: str = Field(min_length=1)
    connections: float = Field(ge=0, le=1e9)
    name: str = ""
    port: int | None = Field(None, ge=1, le=65535)
    protocol: str | int = "tcp"
    packets: float = Field(10.0, ge=1, le=1e9)
    size: int = Field(500, ge=SIZES[0], le=SIZES[1])
    duration: Duration = Duration("fixed", 1.0)
    sources: int = Field(0, ge=0, le=1 << 24)
    destinations: int = Field(0, ge=0, le=1 << 16)
    growth: float = Field(1.0, gt=0, le=1e6)
    answered: float = Field(1.0, ge=0, le=1)
    endings: _Endings = _Endings(fin=1.0, rst=0.0, silent=0.0)

    @field_validator("duration", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Duration:
        try:
            return Duration.read(value)
        except FastpathError as error:
            raise ValueError(str(error)) from None

    @field_validator("protocol")
    @classmethod
    def _protocol(cls, value: str | int) -> str | int:
        if isinstance(value, int) and 0 <= value <= 255:
            return next((name for name, number in PROTOCOL_NUMBERS.items() if number == value), value)
        if value in PROTOCOL_NUMBERS:
            return value
        raise ValueError(f"should be one of {', '.join(PROTOCOL_NUMBERS)}, or a number from 0 to 255")

    @model_validator(mode="after")
    def _ports(self) -> _Class:
        if self.protocol in WITH_PORTS and self.port is None:
            raise ValueError(f"a {self.protocol} class needs a port")
        if self.protocol not in WITH_PORTS and self.port is not None:
            raise ValueError(f"protocol {self.protocol} has no ports; leave port out")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    growth: float = Field(1.0, gt=0, le=1e6)
    classes: list[_Class] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class FlowClass:
    """A class of connections, as the module's text describes it.

    Attributes:
        name: unique within its profile.
        source, to: who opens connections, to whom.
        protocol: a name of PROTOCOL_NUMBERS, or a number as text.
        number: the protocol's number.
        port: destination port, 0 for protocols without.
        rate: new connections per second, growth included.
        packets: packets of a connection, both directions.
        size: bytes of an IP packet.
        duration: how long connections last.
        sources, destinations: how many addresses open connections, and to how many; 0 where the profile does not say.
        answered, fin, rst, silent: as in :class:`ConnectionClass`.
    """

    name: str
    source: str
    to: str
    protocol: str
    number: int
    port: int
    rate: float
    packets: float
    size: int
    duration: Duration
    sources: int
    destinations: int
    answered: float
    fin: float
    rst: float
    silent: float

    @property
    def packet_rate(self) -> float:
        """Packets per second."""
        return self.rate * (self.packets if self.answered == 1 else
                            self.answered * self.packets + (1 - self.answered))

    def connections(self, masqueraded: float = 0.0) -> ConnectionClass:
        """The class for conntrack."""
        kind = self.protocol if self.protocol in PROTOCOL_NUMBERS else "other"
        return ConnectionClass(self.name, kind, self.rate, self.duration, answered=self.answered, fin=self.fin,
                               rst=self.rst, silent=self.silent, masqueraded=masqueraded)


@dataclass(frozen=True, slots=True)
class Profile:
    """A traffic profile.

    Attributes:
        name: for people.
        classes: in the file's order.
        source: the file.
        text: what it says.
    """

    name: str
    classes: tuple[FlowClass, ...]
    source: str = "profile"
    text: str = ""

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """The profile of a YAML or JSON file.

        Raises:
            ProfileError: it cannot be read, or says what a profile does not.
        """
        from fastpath.docker.errors import TopologyError
        from fastpath.docker.yamlfile import parse_yaml

        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"{path}: cannot be read: {error}") from None
        try:
            data = parse_yaml(text, str(path))
        except TopologyError as error:
            raise ProfileError(str(error)) from None
        return replace(cls.from_dict(data, str(path)), text=text)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "profile") -> Profile:
        """The profile of what a file would hold.

        Raises:
            ProfileError: as :meth:`load`.
        """
        try:
            read = _File.model_validate(dict(data))
        except ValidationError as error:
            raise ProfileError(_message(error, source)) from None
        names: set[str] = set()
        classes = []
        for number, each in enumerate(read.classes):
            name = each.name or " ".join(filter(None, (f"{each.source} to {each.to}", str(each.port or ""))))
            if name in names:
                raise ProfileError(f"{source}: classes[{number}].name: {name!r} is there twice; each needs its own")
            names.add(name)
            protocol = str(each.protocol)
            classes.append(FlowClass(
                name, each.source, each.to, protocol, PROTOCOL_NUMBERS.get(protocol, -1) if not protocol.isdigit()
                else int(protocol), each.port or 0, each.connections * each.growth * read.growth, each.packets,
                each.size, each.duration, each.sources, each.destinations, each.answered, each.endings.fin,
                each.endings.rst, each.endings.silent))
        return cls(read.name or Path(source).stem, tuple(classes), source)

    def on(self, host: Host, n: int = 100_000, **options: Any) -> Traffic:
        """The profile's packets on a host; see :func:`fastpath.capacity.traffic.packets.traffic`."""
        from fastpath.capacity.traffic.packets import traffic

        return traffic(host, self, n, **options)

    def scaled(self, factor: float) -> Profile:
        """The same with `factor` times the connections."""
        return replace(self, classes=tuple(replace(each, rate=each.rate * factor) for each in self.classes))

    @property
    def rate(self) -> float:
        """New connections per second."""
        return sum(each.rate for each in self.classes)

    @property
    def packet_rate(self) -> float:
        """Packets per second."""
        return sum(each.packet_rate for each in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"name": self.name, "source": self.source, "classes": [
            {"name": c.name, "from": c.source, "to": c.to, "protocol": c.protocol, "port": c.port or None,
             "connections": c.rate, "packets": c.packets, "size": c.size, "duration": c.duration.to_dict(),
             "sources": c.sources, "destinations": c.destinations, "answered": c.answered,
             "endings": {"fin": c.fin, "rst": c.rst, "silent": c.silent}}
            for c in self.classes]}


def _message(error: ValidationError, source: str) -> str:
    """The first thing that is wrong, and where."""
    first = error.errors()[0]
    path = ""
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in ("str", "int"):
            path += f".{part}" if path else str(part)
    text = first["msg"].removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    value = first.get("input")
    if first["type"] == "extra_forbidden":
        known = _File.model_fields if path.count(".") == 0 else (
            _Endings.model_fields if ".endings" in path else _Class.model_fields)
        names = [field.alias or name for name, field in known.items()]
        return f"{source}: {path}: there is no such key; there are {', '.join(names)}"
    if first["type"] == "missing":
        return f"{source}: {path}: is missing"
    shown = f"{value!r}: " if isinstance(value, str | int | float) else ""
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{source}: {path or 'the file'}: {shown}{text}{more}"

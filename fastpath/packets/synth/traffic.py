"""The ``traffic`` profile: a mix of packets such as a Docker host sees.

Shares (a class that the host has no place for gives its share to the others):

=============  ====  ========================================================================================
class             %  packets
=============  ====  ========================================================================================
published        24  first packets from the internet (one in eight: from the uplink's own subnet) to published ports
answers          26  answers of those services' containers to their clients, of established connections
bridge           12  container to container on one network; a quarter opens connections
across            5  container to container on another network; most of it opens connections
egress           16  container to the internet: web, DNS, NTP, ping; a third opens connections
to-container      5  the host itself to its containers
to-host           3  container to the host, and to published ports by the host's address
host              7  the internet to the host itself and back
scans             2  probes of any port with all kinds of flags, of container addresses, and strays of dead connections
=============  ====  ========================================================================================

Services, containers and remote networks are chosen with Zipf-distributed popularity. Inbound packets arrive on the
uplink with the host's address; containers send from their network's interface and subnet. TCP packets of a known flow
have the state ``established`` or ``reply``; a packet that opens a connection is a SYN of state ``auto``.

Packets whose *destination* an existing connection's NAT would rewrite (what follows the first packet towards a
published port, and answers to masqueraded connections) are left out, since a packet alone does not tell what its flow
was mapped to.

How it is made: 65,536 templates are drawn once; a packet is a random template with the free bits of its remote address
and its ephemeral port filled in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.host.model import Host
from fastpath.packets.schema import LOCAL, State
from fastpath.packets.synth.draw import Bits, generator, pick, zipf
from fastpath.packets.synth.site import Service, Site, Subnet, survey

Array = npt.NDArray[Any]
Rows = dict[str, Array]

MIX: dict[str, float] = {
    "published": 24, "answers": 26, "bridge": 12, "across": 5, "egress": 16, "to-container": 5, "to-host": 3, "host": 7,
    "scans": 2,
}
"""Share of each class in percent."""

TEMPLATES = 1 << 16
_EPHEMERAL, _EPHEMERAL_SPAN = 32768, 28232  # Linux's net.ipv4.ip_local_port_range
_SYN, _ACK, _PSH_ACK, _FIN_ACK = 2, 16, 24, 17
_CONTAINER_PORTS = (5432, 6379, 8080, 3306, 80, 9200, 5672, 27017)
_REMOTE_PORTS = ((6, 443), (17, 53), (6, 80), (17, 443), (17, 123), (6, 5432))

_FIELDS: dict[str, str] = {
    "iif": "int16", "oif": "int16", "src": "uint32", "dst": "uint32", "src_free": "uint32", "dst_free": "uint32",
    "proto": "uint8", "sport": "uint16", "dport": "uint16", "sport_span": "uint16", "dport_span": "uint16",
    "tcp_flags": "uint8", "icmp_type": "uint8", "length": "uint16", "ttl": "uint8", "state": "uint8",
}
_PLAIN = ("iif", "proto", "tcp_flags", "icmp_type", "length", "ttl", "state")


class Traffic:
    """Makes blocks of the ``traffic`` profile for one host and seed."""

    stream = 2

    def __init__(self, host: Host, seed: int) -> None:
        site = survey(host)
        builder = _Builder(site, generator(seed, self.stream))
        self.interfaces = builder.interfaces
        table = builder.build()
        order = builder.rng.permutation(len(table["iif"]))
        self._table = {name: values[order] for name, values in table.items()}
        self.columns = ("iif", "src", "dst", "proto", "sport", "dport", "tcp_flags", "icmp_type", "length", "ttl",
                        "state", *(() if host.complete else ("oif",)))

    def fill(self, bits: Bits, out: Rows) -> None:
        """Fills one block: `out` has an array of BLOCK values for each of ``columns``."""
        table = self._table
        row = bits.take(np.uint16).astype(np.int64)
        free = bits.take(np.uint32)
        port = bits.take(np.uint16).astype(np.uint32)
        for name in self.columns:
            if name in _PLAIN or name == "oif":
                np.take(table[name], row, out=out[name], mode="clip")
        for name in ("src", "dst"):
            np.bitwise_or(table[name][row], table[name + "_free"][row] & free, out=out[name])
        for name in ("sport", "dport"):
            shift = (port * table[name + "_span"][row]) >> np.uint32(16)
            np.add(table[name][row], shift, out=out[name], casting="unsafe")


class _Builder:
    """Draws the templates."""

    def __init__(self, site: Site, rng: np.random.Generator) -> None:
        self.site = site
        self.rng = rng
        names = dict.fromkeys([LOCAL, site.uplink, *(s.interface for s in site.subnets)])
        self.interfaces: tuple[str, ...] = tuple(names)
        self._code = {name: i for i, name in enumerate(self.interfaces)}
        self._subnets = [s for s in site.subnets if s.members]
        self._members = [(s, m) for s in self._subnets for m in s.members]
        self._services = [site.services[i] for i in rng.permutation(len(site.services))]
        self._remotes = self._remote_networks(512)

    def build(self) -> Rows:
        """All templates by field, in order of their classes."""
        makers: dict[str, Callable[[int], Rows] | None] = {
            "published": self._published if self._services else None,
            "answers": self._answers if any(s.subnet is not None for s in self._services) else None,
            "bridge": self._bridge if any(len(s.members) > 1 for s in self._subnets) else None,
            "across": self._across if len(self._subnets) > 1 else None,
            "egress": self._egress if self._members else None,
            "to-container": self._to_container if self._members else None,
            "to-host": self._to_host if self._members else None,
            "host": self._host,
            "scans": self._scans,
        }
        active = {name: maker for name, maker in makers.items() if maker is not None}
        total = sum(MIX[name] for name in active)
        counts = {name: int(TEMPLATES * MIX[name] / total) for name in active}
        counts[max(counts, key=counts.__getitem__)] += TEMPLATES - sum(counts.values())
        parts = [maker(counts[name]) for name, maker in active.items()]
        return {name: np.concatenate([part[name] for part in parts]) for name in _FIELDS}

    # ---------------------------------------------------------------------------------------- classes

    def _published(self, n: int) -> Rows:
        chosen = self._by_popularity(len(self._services), n)
        first = np.array([s.ports[0] for s in self._services])[chosen]
        span = np.array([s.ports[1] - s.ports[0] for s in self._services])[chosen]
        own = pick(self.rng, self.site.addresses, n)
        fixed = np.array([-1 if s.address is None else s.address for s in self._services])[chosen]
        oif = np.array([self._egress_of(s) for s in self._services])[chosen]
        rows = self._from_outside(n)
        rows.update(dst=np.where(fixed < 0, own, fixed), dport=first + self.rng.integers(0, span + 1), oif=oif,
                    proto=np.array([s.proto for s in self._services])[chosen])
        return self._finish(n, rows, opening=1.0)

    def _answers(self, n: int) -> Rows:
        services = [s for s in self._services if s.subnet is not None]
        chosen = self._by_popularity(len(services), n)
        iif = [self._egress_of(s) for s in services]
        rows: Rows = {
            "iif": np.array(iif)[chosen], "src": np.array([s.target for s in services])[chosen],
            "sport": np.array([s.port for s in services])[chosen], "sport_span": np.zeros(n, np.int64),
            "proto": np.array([s.proto for s in services])[chosen], "dport": np.full(n, _EPHEMERAL),
            "dport_span": np.full(n, _EPHEMERAL_SPAN), "oif": np.full(n, self._code[self.site.uplink])}
        rows.update(self._remote("dst", n))
        return self._finish(n, rows, opening=0.0, reply=1.0)

    def _bridge(self, n: int) -> Rows:
        pairs = [(s, a, b) for s in self._subnets for a in s.members[:8] for b in s.members[:8] if a != b]
        chosen = self._by_popularity(len(pairs), n, shuffle=True)
        codes = np.array([self._code[s.interface] for s, _, _ in pairs])[chosen]
        rows = self._to_service(n, np.array([b for _, _, b in pairs])[chosen])
        rows.update(iif=codes, oif=codes, src=np.array([a for _, a, _ in pairs])[chosen])
        return self._finish(n, rows, opening=0.25, reply=0.4)

    def _across(self, n: int) -> Rows:
        source = self._by_popularity(len(self._subnets), n, shuffle=True)
        step = self.rng.integers(1, len(self._subnets), n)
        target = (source + step) % len(self._subnets)
        rows = self._to_service(n, self._member_of(target))
        rows.update(iif=self._codes(self._subnets)[source], src=self._member_of(source),
                    oif=self._codes(self._subnets)[target])
        return self._finish(n, rows, opening=0.85)

    def _egress(self, n: int) -> Rows:
        chosen = self._by_popularity(len(self._members), n, shuffle=True)
        rows = self._to_remote_port(n)
        rows.update(iif=self._codes([s for s, _ in self._members])[chosen],
                    src=np.array([m for _, m in self._members])[chosen],
                    oif=np.full(n, self._code[self.site.uplink]))
        return self._finish(n, rows, opening=0.35, ping=0.02)

    def _to_container(self, n: int) -> Rows:
        chosen = self._by_popularity(len(self._members), n, shuffle=True)
        rows = self._to_service(n, np.array([m for _, m in self._members])[chosen])
        rows.update(iif=np.full(n, self._code[LOCAL]), src=np.array([s.own for s, _ in self._members])[chosen],
                    oif=self._codes([s for s, _ in self._members])[chosen])
        return self._finish(n, rows, opening=0.4, ping=0.05)

    def _to_host(self, n: int) -> Rows:
        chosen = self._by_popularity(len(self._members), n, shuffle=True)
        rows = self._to_local_port(n)
        gateway = np.array([s.own for s, _ in self._members])[chosen]
        rows.update(iif=self._codes([s for s, _ in self._members])[chosen], dst=gateway,
                    src=np.array([m for _, m in self._members])[chosen])
        if self._services:
            published = self.rng.random(n) < 0.5
            service = self._by_popularity(len(self._services), n)
            at = np.array([s.address or 0 for s in self._services])[service]
            rows["dst"] = np.where(published, np.where(at > 0, at, pick(self.rng, self.site.addresses, n)), gateway)
            for name, values in (("dport", [s.ports[0] for s in self._services]),
                                 ("proto", [s.proto for s in self._services]),
                                 ("oif", [self._egress_of(s) for s in self._services])):
                rows[name] = np.where(published, np.array(values)[service], rows[name])
            return self._finish(n, rows, opening=np.where(published, 1.0, 0.4))
        return self._finish(n, rows, opening=0.4)

    def _host(self, n: int) -> Rows:
        inward = self.rng.random(n) < 0.6
        rows = self._from_outside(n)
        own = pick(self.rng, self.site.addresses, n)
        rows.update(self._to_local_port(n), dst=own)
        away = self._to_remote_port(n)
        away.update(iif=np.full(n, self._code[LOCAL]), src=own, src_free=np.zeros(n, np.int64),
                    oif=np.full(n, self._code[self.site.uplink]))
        rows["dst_free"] = np.zeros(n, np.int64)
        merged = {name: np.where(inward, values, away[name]) for name, values in rows.items()}
        return self._finish(n, merged, opening=0.3, ping=0.05)

    def _scans(self, n: int) -> Rows:
        rows = self._from_outside(n)
        own = pick(self.rng, self.site.addresses, n)
        rows.update(dst=own, dport=self.rng.integers(0, 65536, n), proto=np.where(self.rng.random(n) < 0.8, 6, 17),
                    oif=np.full(n, self._code[LOCAL]))
        if self._members:
            direct = self.rng.random(n) < 0.2
            chosen = self.rng.integers(0, len(self._members), n)
            rows["dst"] = np.where(direct, np.array([m for _, m in self._members])[chosen], own)
            rows["oif"] = np.where(direct, self._codes([s for s, _ in self._members])[chosen], rows["oif"])
        done = self._finish(n, rows, opening=1.0, ping=0.1)
        flags = np.array([_SYN] * 12 + [0, 1, 41, 4, 20, _FIN_ACK, _ACK, 18], np.uint8)
        drawn = flags[self.rng.integers(0, len(flags), n)]
        done["tcp_flags"] = np.where(done["proto"] == 6, drawn, np.uint8(_SYN))
        return done

    # ---------------------------------------------------------------------------------------- pieces

    def _finish(self, n: int, rows: Rows, opening: float | Array, reply: float = 0.0, ping: float = 0.0) -> Rows:
        """Fills in what is left: state and flags, lengths, TTL. `opening` and `reply` are probabilities that a packet
        opens its flow, and that a later one goes in reply direction; `ping` that it is an ICMP echo."""
        rng = self.rng
        zero = np.zeros(n, np.int64)
        rows = {"src_free": zero, "dst_free": zero, "sport": np.full(n, _EPHEMERAL),
                "sport_span": np.full(n, _EPHEMERAL_SPAN), "dport_span": zero, **rows}
        opens = rng.random(n) < opening
        replies = ~opens & (rng.random(n) < reply)
        is_ping = rng.random(n) < ping
        rows["proto"] = np.where(is_ping, 1, rows["proto"])
        for name in ("dport", "dport_span"):
            rows[name] = np.where(is_ping, 0, rows[name])
        if replies.any() and np.any(rows["sport_span"] > 0):  # the other way round: from the service's port
            for end in ("port", "port_span"):
                there, here = rows["s" + end], rows["d" + end]
                rows["s" + end], rows["d" + end] = np.where(replies, here, there), np.where(replies, there, here)
        tcp = rows["proto"] == 6
        known = np.array([_ACK] * 5 + [_PSH_ACK] * 4 + [_FIN_ACK], np.int64)[rng.integers(0, 10, n)]
        rows["tcp_flags"] = np.where(tcp & ~opens, known, _SYN)
        rows["icmp_type"] = np.where(is_ping & replies, 0, 8)
        rows["state"] = np.where(opens, State.AUTO, np.where(replies, State.REPLY, State.ESTABLISHED))
        data = np.array([52, 52, 52, 1500, 1500, 576, 1240, 150])[rng.integers(0, 8, n)]
        small = np.where(tcp, 60, rng.integers(48, 220, n))
        rows["length"] = np.where(is_ping, 84, np.where(opens, small, np.where(tcp, data, rng.integers(60, 1280, n))))
        far = rows["iif"] == self._code[self.site.uplink]
        hops = rng.integers(4, 22, n)
        rows["ttl"] = np.where(far, np.where(rng.random(n) < 0.7, 64, 128) - hops, 64)
        return {name: np.asarray(rows[name]).astype(dtype) for name, dtype in _FIELDS.items()}

    def _from_outside(self, n: int) -> Rows:
        rows: Rows = {"iif": np.full(n, self._code[self.site.uplink])}
        rows.update(self._remote("src", n))
        lan = self.site.lan
        if lan is not None and lan.members:
            near = self.rng.random(n) < 0.125
            rows["src"] = np.where(near, pick(self.rng, lan.members, n), rows["src"])
            rows["src_free"] = np.where(near, 0, rows["src_free"])
        return rows

    def _remote(self, name: str, n: int) -> Rows:
        chosen = self._by_popularity(len(self._remotes), n)
        low = self.rng.integers(0, 1 << 8, n)  # some bits from the template, the rest from the packet
        return {name: self._remotes[chosen] | low << 8, name + "_free": np.full(n, 0xFF)}

    def _remote_networks(self, n: int) -> Array:
        """/16 networks of public addresses that no interface of the host is in."""
        inside = {s.first >> 16 for s in (*self.site.subnets, *([self.site.lan] if self.site.lan else ()))}
        found: dict[int, None] = {}
        while len(found) < n:
            for high in self.rng.integers(0x0100, 0xE000, n).tolist():
                top = high >> 8
                private = top in (10, 127) or high in (0xA9FE, 0xC0A8, 0xC000) or 0xAC10 <= high <= 0xAC1F
                if not private and not (top == 100 and 64 <= high & 255 < 128) and high not in inside:
                    found.setdefault(high)
        return np.array(list(found)[:n], np.int64) << 16

    def _to_service(self, n: int, dst: Array) -> Rows:
        """To containers, on ports that they publish, or on usual ones."""
        known: dict[int, list[tuple[int, int]]] = {}
        for service in self._services:
            known.setdefault(service.target, []).append((service.proto, service.port))
        distinct, which = np.unique(dst, return_inverse=True)
        count = 8
        ports = np.array([pick(self.rng, _CONTAINER_PORTS, count) for _ in distinct])
        protos = np.full((len(distinct), count), 6)
        for i, address in enumerate(distinct.tolist()):
            for k, (proto, port) in enumerate(known.get(address, ())[:count - 2]):
                protos[i, k], ports[i, k] = proto, port
        column = self.rng.integers(0, count, n)
        return {"dst": dst, "proto": protos[which, column], "dport": ports[which, column]}

    def _to_remote_port(self, n: int) -> Rows:
        chosen = self._by_popularity(len(_REMOTE_PORTS), n)
        pairs = np.array(_REMOTE_PORTS)[chosen]
        return {**self._remote("dst", n), "proto": pairs[:, 0], "dport": pairs[:, 1]}

    def _to_local_port(self, n: int) -> Rows:
        pairs = np.array(self.site.local_ports)[self._by_popularity(len(self.site.local_ports), n)]
        return {"proto": pairs[:, 0], "dport": pairs[:, 1], "oif": np.full(n, self._code[LOCAL])}

    def _by_popularity(self, count: int, n: int, shuffle: bool = False) -> Array:
        chosen = self.rng.choice(count, n, p=zipf(count))
        return self.rng.permutation(count)[chosen] if shuffle else chosen

    def _member_of(self, subnet: Array) -> Array:
        counts = np.array([len(s.members) for s in self._subnets])
        start = np.concatenate([[0], np.cumsum(counts)[:-1]])
        flat = np.array([m for _, m in self._members])
        members: Array = flat[start[subnet] + self.rng.integers(0, counts[subnet])]
        return members

    def _codes(self, subnets: list[Subnet]) -> Array:
        return np.array([self._code[s.interface] for s in subnets])

    def _egress_of(self, service: Service) -> int:
        return self._code[self.site.uplink if service.subnet is None
                          else self.site.subnets[service.subnet].interface]

"""The short form of published ports, as ``docker run -p`` and Compose take it.

    port      = [ [ host-ip ":" ] [ host-range ] ":" ] range [ "/" protocol ]
    host-ip   = an IPv4 address | "[" IPv6 address "]"
    range     = number [ "-" number ]

Ranges of the same length are paired; a host range over one container port is a choice that Docker makes.
"""

from __future__ import annotations

import ipaddress

from fastpath.docker.errors import TopologyError
from fastpath.docker.topology import PROTOCOLS, Port


def parse_short(text: str, where: str = "") -> tuple[Port, ...]:
    """The ports that one short form publishes; see :meth:`Port.parse`.

    Raises:
        TopologyError: it cannot be read; `where` comes first in the message.
    """
    at = f"{where}: " if where else ""
    rest, _, protocol = text.strip().partition("/")
    protocol = protocol or "tcp"
    host_ip: str | None = None
    if rest.startswith("["):
        inside, closed, rest = rest[1:].partition("]:")
        if not closed:
            raise TopologyError(f"{at}port {text!r}: '[' starts an IPv6 address such as [::1]:8080:80")
        host_ip, rest = inside, rest
        published, colon, target = rest.rpartition(":")
    else:
        parts = rest.rsplit(":", 2)
        target = parts[-1]
        published = parts[-2] if len(parts) > 1 else ""
        host_ip = parts[0] if len(parts) > 2 else None
    return expand(target, published, protocol, host_ip, f"{at}port {text!r}")


def expand(target: str, published: str, protocol: str, host_ip: str | None, where: str) -> tuple[Port, ...]:
    """The ports of a target range and a published range (empty: Docker chooses).

    Raises:
        TopologyError: not ports, an unknown protocol, no address, or ranges that do not fit each other.
    """
    protocol = protocol.lower()
    if protocol not in PROTOCOLS:
        raise TopologyError(f"{where}: protocol {protocol!r} should be one of {', '.join(PROTOCOLS)}")
    if host_ip:
        try:
            ipaddress.ip_address(host_ip)
        except ValueError:
            raise TopologyError(f"{where}: {host_ip!r} is not an IP address such as 127.0.0.1") from None
    first, last = port_range(target, where)
    if not published:
        return tuple(Port(port, protocol, host_ip=host_ip or None) for port in range(first, last + 1))
    low, high = port_range(published, where)
    if first == last and low != high:
        return (Port(first, protocol, low, high, host_ip or None),)
    if high - low != last - first:
        raise TopologyError(
            f"{where}: {high - low + 1} host ports for {last - first + 1} container ports; the ranges should be equal")
    return tuple(
        Port(first + i, protocol, low + i, host_ip=host_ip or None) for i in range(last - first + 1))


def port_range(text: str, where: str) -> tuple[int, int]:
    """First and last port of ``80`` or ``8000-8010``, 1 to 65535.

    Raises:
        TopologyError: no such thing.
    """
    low, dash, high = text.partition("-")
    numbers = (low, high if dash else low)
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise TopologyError(f"{where}: {text!r} is not a port or a range such as 8000-8010")
    first, last = int(numbers[0]), int(numbers[1])
    if not 1 <= first <= last <= 65535:
        raise TopologyError(f"{where}: {text!r} should lie within 1 to 65535, the lower port first")
    return first, last

"""The three netlink conversations of the judge: conntrack entries, packet logs, and route look-ups.

Numbers and layouts are those of the kernel's headers: linux/netlink.h, linux/netfilter/nfnetlink_conntrack.h and
nfnetlink_log.h, linux/rtnetlink.h. Attributes are type-length-value, 4-aligned; netfilter's numbers are big-endian.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass

from fastpath.netns.wire import GRE, ICMP, SCTP, TCP, TRACKED_BY_PORTS

_ROUTE, _NETFILTER = 0, 12
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 1, 4, 0x200, 0x400
_ERROR = 2
_NESTED = 0x8000
_CT_NEW, _CT_DELETE = 0x100, 0x102
_LOG_CONFIG = 0x401
_GET_ROUTE = 26
_UNICAST = 1
_SO_RCVBUFFORCE = 33
_TCP_ESTABLISHED, _TCP_LIBERAL = 3, 8


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute with its padding."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0) + body


def _netfilter(kind: int, flags: int, family: int, resource: int, body: bytes) -> bytes:
    return _message(kind, flags, struct.pack(">BBH", family, 0, resource) + body)


def _outcome(answer: bytes) -> int:
    """The errno in an acknowledgement, 0 for success and for any other answer."""
    if struct.unpack_from("=H", answer, 4)[0] != _ERROR:
        return 0
    return -int(struct.unpack_from("=i", answer, 16)[0])


def _check(answer: bytes, what: str) -> None:
    number = _outcome(answer)
    if number:
        raise OSError(number, f"{what}: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a flow. For ICMP ``sport`` is the id and ``dport`` type * 256 + code."""

    src: int
    dst: int
    proto: int
    sport: int
    dport: int

    def pack(self) -> bytes:
        """CTA_TUPLE_IP and CTA_TUPLE_PROTO."""
        proto = [attribute(1, bytes([self.proto]))]
        if self.proto == ICMP:
            proto += [attribute(4, self.sport.to_bytes(2)), attribute(5, bytes([self.dport >> 8])),
                      attribute(6, bytes([self.dport & 0xFF]))]
        elif self.proto in TRACKED_BY_PORTS or self.proto == GRE:
            proto += [attribute(2, self.sport.to_bytes(2)), attribute(3, self.dport.to_bytes(2))]
        return nested(1, attribute(1, self.src.to_bytes(4)), attribute(2, self.dst.to_bytes(4))) + nested(2, *proto)


class Flows:
    """Conntrack entries, put in and taken out by hand."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.bind((0, 0))

    def insert(
        self, original: Tuple, reply: Tuple, *, status: int, mark: int = 0, tcp_state: int = _TCP_ESTABLISHED,
        master: Tuple | None = None, bound: bool = True,
    ) -> int:
        """Inserts an entry and says which errno came of it, 0 for success.

        Args:
            original, reply: the entry's two directions.
            status: IPS_* bits; the kernel itself adds CONFIRMED and, with a master, EXPECTED.
            mark: the connection's mark.
            tcp_state: TCP_CONNTRACK_* number, for TCP.
            master: original direction of the flow that this one was expected by.
            bound: whether the entry gets null NAT bindings, as a flow that went through the nat hooks unchanged.
        """
        body = nested(1, original.pack()) + nested(2, reply.pack())
        body += attribute(3, status.to_bytes(4)) + attribute(7, (600).to_bytes(4))
        if bound:
            for kind, address in ((6, reply.dst), (13, reply.src)):
                body += nested(kind, attribute(1, address.to_bytes(4)), attribute(2, address.to_bytes(4)))
        if original.proto == TCP:
            lenient = bytes([_TCP_LIBERAL, _TCP_LIBERAL])
            body += nested(4, nested(1, attribute(1, bytes([tcp_state])), attribute(4, lenient), attribute(5, lenient)))
        elif original.proto == SCTP:
            body += nested(4, nested(3, attribute(1, bytes([4])), attribute(2, bytes(4)), attribute(3, bytes(4))))
        if mark:
            body += attribute(8, mark.to_bytes(4))
        if master is not None:
            body += nested(14, master.pack())
        return self._ask(_netfilter(_CT_NEW, _ACK | _CREATE | _EXCLUSIVE, socket.AF_INET, 0, body))

    def delete(self, original: Tuple) -> int:
        """Takes an entry out; the errno, ENOENT where there is none."""
        body = nested(1, original.pack())
        return self._ask(_netfilter(_CT_DELETE, _ACK, socket.AF_INET, 0, body))

    def _ask(self, message: bytes) -> int:
        self._socket.send(message)
        return _outcome(self._socket.recv(4096))

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Report:
    """What a log message tells: the packet's first bytes, its egress (0 = none) and its mark."""

    packet: bytes
    out: int
    mark: int


class PacketLog:
    """Messages of nftables' and iptables' log statements, by group, in the order in which they happened.

    ``privileged`` says whether the process has the rights of real root, not only those of a user namespace's.
    """

    def __init__(self, groups: range, size: int) -> None:
        """Listens to `groups`; every message carries the first `size` bytes of its packet."""
        self._size = size
        self._full = struct.pack("=HH", 4 + size, 9)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self.privileged = True
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
        except OSError:  # without real root only as far as net.core.rmem_max goes
            self.privileged = False
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((0, 0))
        for group in groups:
            copied = struct.pack(">IBB", size, 2, 0)
            for option in (attribute(1, b"\1"), attribute(2, copied), attribute(5, (1).to_bytes(4))):
                self._socket.send(_netfilter(_LOG_CONFIG, _ACK, 0, group, option))
                _check(self._socket.recv(4096), f"log group {group}")
        self._socket.setblocking(False)

    @property
    def room(self) -> int:
        """Bytes that may wait unread."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def take(self) -> list[bytes]:
        """The messages that wait.

        Raises:
            OSError: some were lost (ENOBUFS).
        """
        found: list[bytes] = []
        receive = self._socket.recv
        try:
            while True:
                found.append(receive(4096))
        except BlockingIOError:
            return found

    def group(self, message: bytes) -> int:
        """The group of a message."""
        return message[18] << 8 | message[19]

    def ident(self, message: bytes) -> int:
        """The identification field of a message's packet."""
        start = len(message) - self._size
        if message[start - 4:start] != self._full:  # a packet shorter than that
            start = self._payload(message)
        return message[start + 4] << 8 | message[start + 5]

    @staticmethod
    def _payload(message: bytes) -> int:
        at = 20
        while at < len(message):
            length, kind = struct.unpack_from("=HH", message, at)
            if kind == 9:
                return at + 4
            at += length + 3 & ~3
        raise ValueError("a log message without a packet")

    @staticmethod
    def report(message: bytes) -> Report:
        """A message, read."""
        at, values, packet = 20, {}, b""
        while at < len(message):
            length, kind = struct.unpack_from("=HH", message, at)
            if kind == 9:
                packet = message[at + 4:at + length]
            elif kind in (2, 5):
                values[kind] = int.from_bytes(message[at + 4:at + 8])
            at += length + 3 & ~3
        return Report(packet, values.get(5, 0), values.get(2, 0))

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()


class Routing:
    """The kernel's own answer to where an arriving packet would go."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _ROUTE)
        self._socket.bind((0, 0))

    def ask(self, src: int, dst: int, ingress: int, mark: int, tos: int) -> tuple[int, bool]:
        """Where a packet arriving at interface `ingress` goes: the errno with which it is refused a route (0 where it
        has one), and whether it would be forwarded."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 32, tos, 0, 0, 0, 0, 0)
        body += attribute(1, dst.to_bytes(4)) + attribute(2, src.to_bytes(4))
        body += attribute(3, struct.pack("=I", ingress)) + attribute(16, struct.pack("=I", mark))
        self._socket.send(_message(_GET_ROUTE, 0, body))
        answer = self._socket.recv(8192)
        refusal = _outcome(answer)
        return refusal, not refusal and answer[16 + 7] == _UNICAST

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()


UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES})
"""Refusals that the kernel answers with an ICMP error when it forwards; it is silent on the others."""

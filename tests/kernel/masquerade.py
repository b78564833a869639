"""Run in a process of its own: a router in a network namespace, whose connections are really entered into the table.

Reads a JSON list of steps from standard input and writes, as JSON, what each let through: ``{"rule": ...}`` loads one,
``{"open": N, "seq": S, "sources": K}`` sends N SYNs of different connections and tells the source ports that they left
with, ``{"close": true}`` takes every open connection through its handshake and both FINs, ``{"read": [...]}`` reads
sysctls of conntrack.
"""

from __future__ import annotations

import json
import os
import struct
import sys

from fastpath.errors import UnavailableError
from fastpath.netns import namespace
from fastpath.netns.namespace import Devices, run
from fastpath.netns.wire import _PSEUDO, _ip, checksum

SERVER, ROUTER = 0xCB007109, 0x0A01FF01  # 203.0.113.9 on the far side, 10.1.255.1 here
_SYN, _ACK, _FIN = 2, 16, 1


def tcp(src: int, dst: int, sport: int, dport: int, flags: int, seq: int, ack: int) -> bytes:
    head = struct.pack(">HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 0xFFFF, 0, 0)
    sum_ = checksum(_PSEUDO.pack(src, dst, 6, 20) + head)
    return _ip(src, dst, 6, 40, 1, 0, 64, 0) + head[:16] + sum_.to_bytes(2) + head[18:]


class Router:
    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.devices = Devices(["in0", "out0"])
        mac = {name: self.devices.addresses[name] for name in ("in0", "out0")}
        self.frame = {name: mac[name] + b"\x02\0\0\0\0\x01" + b"\x08\0" for name in mac}
        run(["ip", "-batch", "-"], "\n".join([
            "link set lo up", "link set in0 up", "link set out0 up", "addr add 10.1.255.1/16 dev in0",
            "addr add 203.0.113.1/24 dev out0", "neigh add 203.0.113.9 lladdr 02:00:00:00:00:01 dev out0",
            *(f"neigh add 10.1.0.{n} lladdr 02:00:00:00:00:01 dev in0" for n in range(1, 255))]) + "\n")
        for path in ("net/ipv4/ip_forward", "net/ipv4/conf/in0/proxy_arp"):
            with open(f"/proc/sys/{path}", "w") as file:
                file.write("1")
        self.opened: list[tuple[int, int, int, int]] = []  # source, port, port outside, sequence number
        self.number = 0

    def rules(self, rule: str) -> None:
        run([f"iptables-{self.backend}-restore"], f"*nat\n-A POSTROUTING {rule}\nCOMMIT\n")

    def send(self, name: str, packet: bytes) -> bytes | None:
        """What comes out of the other device, an IP packet."""
        other = "out0" if name == "in0" else "in0"
        os.write(self.devices.files[name], self.frame[name] + packet)
        while True:
            try:
                found = os.read(self.devices.files[other], 4096)
            except BlockingIOError:
                return None
            if found[12:14] == b"\x08\0" and found[23] == 6:
                return found[14:]

    def open(self, count: int, seq: int, sources: int, port: int) -> list[int]:
        """Source ports with which `count` new connections left; each has a source and port of its own."""
        found = []
        for _ in range(count):
            src, sport = 0x0A010001 + self.number % sources, port + self.number // sources
            self.number += 1
            out = self.send("in0", tcp(src, SERVER, sport, 80, _SYN, seq, 0))
            if out is not None:
                outside = int.from_bytes(out[20:22])
                found.append(outside)
                self.opened.append((src, sport, outside, seq))
        return found

    def close(self) -> int:
        """Closes what is open; how many connections passed all their packets."""
        done = 0
        for src, sport, outside, seq in self.opened:
            here = 0xCB007101
            steps = [
                ("out0", tcp(SERVER, here, 80, outside, _SYN | _ACK, 5000, seq + 1)),
                ("in0", tcp(src, SERVER, sport, 80, _ACK, seq + 1, 5001)),
                ("in0", tcp(src, SERVER, sport, 80, _FIN | _ACK, seq + 1, 5001)),
                ("out0", tcp(SERVER, here, 80, outside, _FIN | _ACK, 5001, seq + 2)),
                ("in0", tcp(src, SERVER, sport, 80, _ACK, seq + 2, 5002)),
            ]
            done += all(self.send(name, packet) is not None for name, packet in steps)
        self.opened.clear()
        return done


def main() -> None:
    steps = json.load(sys.stdin)
    try:
        namespace.unshare()
        answers: list[object] = []
        router = None
        for step in steps:
            if "rule" in step:
                namespace.fresh_network()
                router = Router(step["backend"])
                router.rules(step["rule"])
                answers.append(None)
            elif "read" in step:
                answers.append([open(f"/proc/sys/net/netfilter/nf_conntrack_{name}").read() for name in step["read"]])
            elif "open" in step:
                assert router is not None
                answers.append(router.open(step["open"], step.get("seq", 1000), step.get("sources", 100),
                                           step.get("port", 40000)))
            else:
                assert router is not None
                answers.append(router.close())
    except UnavailableError as error:
        print(json.dumps({"unavailable": str(error)}))
        return
    print(json.dumps({"answers": answers}))


if __name__ == "__main__":
    main()

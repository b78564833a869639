"""Predicted against measured: the cost model and the running kernel on the same hosts and packets.

Calibrates this machine, then times mixed packets through 20 hosts of 10 to 10,000 rules on both back ends and
compares with what the fresh calibration says. Prints a table, the errors, and a paragraph; --out writes a chart.

    sudo python -m bench.capacity.validate [--quick] [--out FOLDER] [--model calibration.json]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import fastpath as fp
from bench.capacity.common import chart
from fastpath.capacity.cpu.calibrate import calibrate
from fastpath.capacity.cpu.evaluate import cost
from fastpath.capacity.cpu.meter import Meter
from fastpath.capacity.cpu.model import BACKENDS, CostModel
from fastpath.docker import Container, Endpoint, Network, Port, Topology
from fastpath.errors import UnavailableError
from fastpath.host.model import Host
from fastpath.host.text import make_host
from fastpath.packets import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.ruleset.parse import parse_ruleset

SIZES = (10, 16, 25, 40, 63, 100, 150, 220, 320, 450, 630, 900, 1300, 1800, 2500, 3500, 5000, 6500, 8000, 10_000)
"""Rules of the 20 hosts."""

IPSETS = """\
create bad hash:net
add bad 203.0.113.0/24
add bad 10.9.0.0/16
create hosts hash:ip
add hosts 203.0.113.77
create services hash:ip,port
add services 203.0.113.77,tcp:80
"""


@dataclass(frozen=True)
class Case:
    """One host on one back end.

    Attributes:
        name, backend, rules, packets: what it was.
        measured, predicted: ns a packet.
        rules_measured, rules_predicted: the part above the model's base.
    """

    name: str
    backend: str
    rules: int
    packets: int
    walked: float
    measured: float
    predicted: float
    rules_measured: float
    rules_predicted: float

    @property
    def error(self) -> float:
        """Relative error of the whole."""
        return self.predicted / self.measured - 1


# ------------------------------------------------------------------------------------------------------ hosts

def addresses(r: random.Random) -> str:
    return r.choice((f"-s 203.0.{r.randrange(256)}.{r.randrange(256)}/32", f"-d 203.0.{r.randrange(256)}.0/24",
                     f"-s 10.{r.randrange(256)}.0.0/15 -d 198.18.0.0/16")) + " -j DROP"


def interfaces(r: random.Random) -> str:
    return r.choice((f"-i br-{r.randrange(999)} ! -o br-{r.randrange(999)} -j DROP",
                     f"-o br-{r.randrange(999)} -j DROP", f"-i in0 -o br-{r.randrange(999)} -j ACCEPT",
                     "-i veth+ -j DROP"))


def ports(r: random.Random) -> str:
    p = r.randrange(10_000, 30_000)
    return r.choice((
        f"-p tcp -m tcp --dport {p} -j ACCEPT", f"-p udp -m udp --dport {p} -j ACCEPT",
        f"-p tcp -m tcp --dport {p}:{p + 9} -j ACCEPT",
        f"-d 198.18.{r.randrange(256)}.{r.randrange(256)}/32 ! -i out0 -o out0 -p tcp -m tcp --dport {p} -j ACCEPT",
        f"-p tcp -m multiport --dports {p},{p + 1},{p + 5} -j ACCEPT",
    ))


def stateful(r: random.Random) -> str:
    return r.choice((
        "-m conntrack --ctstate INVALID -j DROP", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-o br-{r.randrange(99)} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-m mark --mark {r.randrange(1, 99):#x} -j DROP", f"-m connmark --mark {r.randrange(1, 99):#x} -j DROP",
        "-p tcp -m tcp --tcp-flags SYN,ACK ACK -m conntrack --ctstate INVALID -j DROP",
    ))


def looked_up(r: random.Random) -> str:
    return r.choice((
        "-m set --match-set bad src -j DROP", "-m set --match-set hosts dst -j DROP",
        "-m set --match-set services dst,dst -j DROP", "-m addrtype --dst-type LOCAL -j DROP",
        "-m addrtype --src-type BROADCAST -j DROP",
        f"-m iprange --src-range 203.0.113.{r.randrange(100)}-203.0.113.200 -j DROP",
    ))


def rare(r: random.Random) -> str:
    return r.choice((
        f'-p tcp -m comment --comment "service {r.randrange(999)}" -m tcp --dport {r.randrange(9000)} -j DROP',
        "-m length --length 1400:1500 -j DROP", "-m ttl --ttl-lt 3 -j DROP", "-m pkttype --pkt-type multicast -j DROP",
        f"-m dscp --dscp {r.randrange(1, 60)} -j ACCEPT", "-p icmp -m icmp --icmp-type 5 -j DROP",
        f"-m mac --mac-source 02:00:00:00:01:{r.randrange(100):02}  -j DROP", "-m tos --tos 0x08/0xff -j ACCEPT",
    ))


def counting(r: random.Random) -> str:
    return r.choice(("-p tcp", "-i in0", "-d 198.18.0.0/16", "-j SIDE", "-p tcp -j SIDE",
                     f"-s 198.51.100.{r.randrange(256)}/32"))


KINDS: dict[str, tuple[Callable[[random.Random], str], ...]] = {
    "addresses": (addresses,), "interfaces": (interfaces,), "ports": (ports,), "stateful": (stateful, addresses),
    "look-ups": (looked_up, addresses, addresses),
    "mixed": (addresses, interfaces, ports, stateful, looked_up, rare, counting),
    "rare": (rare, ports, counting), "docker": (),
}


def made_up(kind: str, size: int, seed: int) -> tuple[Host, PacketBatch]:
    """A router with `size` rules, half of them in a user chain, and 24 packets that go through it."""
    r = random.Random(seed)
    makers = KINDS[kind]
    rules = [f"-A {'SIDE2' if i >= size // 2 else 'FORWARD'} {r.choice(makers)(r)}" for i in range(size - 3)]
    text = "\n".join([
        "*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":SIDE - [0:0]",
        ":SIDE2 - [0:0]", "-A SIDE -s 203.0.113.1/32 -j RETURN", *rules[:size // 2], "-A FORWARD -j SIDE2",
        *rules[size // 2:], "-A FORWARD -i in0 -j ACCEPT", "COMMIT", ""])
    host = make_host(parse_ruleset(text), {"in0": ["198.51.100.1/24"], "out0": ["198.18.0.1/16"]}, [], ipsets=IPSETS,
                     sysctls={"net.ipv4.ip_forward": "1"})
    packets = [Packet.make(
        iif="in0", src=f"198.51.100.{r.randrange(2, 250)}", dst=f"198.18.{r.randrange(256)}.{r.randrange(2, 250)}",
        proto=r.choice(("tcp", "tcp", "tcp", "udp")), sport=r.randrange(32_768, 60_000),
        dport=r.choice((80, 443, 53, 8080)), mac_src="02:00:00:00:00:01") for _ in range(24)]
    return host, PacketBatch.from_packets(packets)


def docker(size: int, seed: int) -> tuple[Host, PacketBatch]:
    """About `size` rules of Docker 28: networks of three containers, two of them with a published port."""
    networks = max(1, (size - 20) // 14)
    nets = tuple(Network(f"n{i}", subnet=f"10.{100 + i // 250}.{i % 250}.0/24") for i in range(networks))
    containers = tuple(
        Container(f"c{i}-{j}", (Endpoint(f"n{i}"),),
                  ports=Port.parse(f"{10_000 + 2 * i + j}:80") if j < 2 else ())
        for i in range(networks) for j in range(3))
    host = Topology(nets, containers).host("28")
    packets = fp.synth.packets(host, 4000, seed=seed)
    return host, fp.netns.enough(host, packets, 48)


def hosts() -> Iterator[tuple[str, Host, PacketBatch]]:
    """The 20 hosts with their packets."""
    names = list(KINDS)
    for i, size in enumerate(SIZES):
        kind = names[i % len(names)]
        yield f"{kind} {size}", *(docker(size, i) if kind == "docker" else made_up(kind, size, i))


# --------------------------------------------------------------------------------------------------- comparing

def compare(model: CostModel, seconds: float = 0.05) -> list[Case]:
    """Every host on every back end that works here."""
    found = []
    with Meter() as meter:
        for name, host, packets in hosts():
            for backend in BACKENDS:
                try:
                    reading = meter.read(host, packets, backend, rounds=5, seconds=seconds)
                except UnavailableError as error:
                    print(f"{name} on {backend}: {str(error).splitlines()[-1]}")
                    continue
                said = cost(host, packets.take(np.array(reading.kept)), backend=backend, model=model)
                rules = sum(len(c.rules) for t in host.ruleset.tables for c in t.chains)
                found.append(Case(name, backend, rules, reading.packets, said.rules_examined, reading.ns, said.mean_ns,
                                  reading.ns - said.base_ns, said.rules_ns))
                case = found[-1]
                print(f"{name:18} {backend:7} {rules:6} rules, {case.walked:7.0f} walked: measured "
                      f"{case.measured:9.0f} ns, predicted {case.predicted:9.0f}, {case.error:+7.1%}; rules' part "
                      f"{case.rules_measured:9.0f} {case.rules_predicted:9.0f}", flush=True)
    return found


def paragraph(cases: list[Case]) -> str:
    """The result in words."""
    errors = np.array([abs(c.error) for c in cases])
    parts = np.array([abs(c.rules_predicted / c.rules_measured - 1) for c in cases if c.rules_measured > 500])
    worst = cases[int(errors.argmax())]
    medians = {b: float(np.median([abs(c.error) for c in cases if c.backend == b])) for b in {c.backend for c in cases}}
    return (f"{len(cases)} cases: median error {np.median(errors):.1%}, worst {errors.max():.1%} ({worst.name} on "
            f"{worst.backend}); by back end {', '.join(f'{b} {e:.1%}' for b, e in sorted(medians.items()))}. Of the "
            f"rules' part alone, where it is over 500 ns ({len(parts)} cases): median {np.median(parts):.1%}, worst "
            f"{parts.max():.1%}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path, help="use this calibration in place of a fresh one")
    given = parser.parse_args()
    model = CostModel.load(given.model) if given.model else calibrate(quick=given.quick).model
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        model.save(given.out / "calibration.json")
    cases = compare(model, 0.02 if given.quick else 0.05)
    print(paragraph(cases))
    if given.out:
        rows = [asdict(c) | {"error": c.error} for c in cases]
        (given.out / "validate.json").write_text(json.dumps(rows, indent=1))
        chart(given.out / "validate.png", [
            {"rules examined": c.walked, "ns a packet": ns, "by": f"{c.backend} {what}"} for c in cases
            for what, ns in (("measured", c.measured), ("predicted", c.predicted))],
            "rules examined", "ns a packet", "by", "predicted and measured by the kernel", log=True)


if __name__ == "__main__":
    main()

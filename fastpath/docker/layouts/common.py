"""What the generations share: a set of chains to write to, and the rules whose wording never changed.

Rules are written as iptables-save prints them and read by the parser at the end, so a layout cannot write what iptables
would print otherwise. ``head`` is `iptables -I`, ``tail`` is `iptables -A`; both do nothing where the chain has the
very rule already, since dockerd asks (`-C`) before it writes.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from fastpath.docker.plan import GATEWAY_BRIDGE, Attachment, Ingress, Linked, Plan, Published, Segment
from fastpath.ruleset.model import BUILTIN_CHAINS, Ruleset
from fastpath.ruleset.parse import parse_ruleset

TABLES = ("raw", "filter", "nat")
"""The tables that dockerd writes to, in the order in which they are printed."""
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
TO_LOCAL = "-m addrtype --dst-type LOCAL"


class Chains:
    """Chains under construction."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], deque[str]] = {}
        self._known: dict[tuple[str, str], set[str]] = {}
        self.policies: dict[tuple[str, str], str] = {}

    def make(self, table: str, *names: str) -> None:
        """`iptables -N`: user chains, empty."""
        for name in names:
            self._rules.setdefault((table, name), deque())

    def head(self, table: str, chain: str, rule: str) -> None:
        """`iptables -I`, unless the rule is there."""
        if self._new(table, chain, rule):
            self._rules[table, chain].appendleft(rule)

    def tail(self, table: str, chain: str, rule: str) -> None:
        """`iptables -A`, unless the rule is there."""
        if self._new(table, chain, rule):
            self._rules[table, chain].append(rule)

    def top(self, table: str, chain: str, rule: str) -> None:
        """The rule as the chain's first, wherever it was."""
        if not self._new(table, chain, rule):
            self._rules[table, chain].remove(rule)
        self._rules[table, chain].appendleft(rule)

    def _new(self, table: str, chain: str, rule: str) -> bool:
        self._rules.setdefault((table, chain), deque())
        known = self._known.setdefault((table, chain), set())
        if rule in known:
            return False
        known.add(rule)
        return True

    def text(self) -> str:
        """Everything as iptables-save prints it: user chains in alphabetical order, tables without rules left out."""
        lines: list[str] = []
        for table in TABLES:
            user = sorted(name for t, name in self._rules if t == table and name not in BUILTIN_CHAINS[table])
            names = [*BUILTIN_CHAINS[table], *user]
            rules = [f"-A {name} {rule}" for name in names for rule in self._rules.get((table, name), ())]
            if not rules and not user:
                continue
            lines.append(f"*{table}")
            for name in names:
                policy = self.policies.get((table, name), "ACCEPT") if name in BUILTIN_CHAINS[table] else "-"
                lines.append(f":{name} {policy} [0:0]")
            lines += [*rules, "COMMIT"]
        return "".join(f"{line}\n" for line in lines)


class Layout:
    """Writes the rules of one generation. Subclasses say what a daemon, a network, an endpoint and a port bring.

    Class attributes:
        skip_dnat: nat DOCKER starts with a RETURN for what comes from a bridge.
    """

    skip_dnat: ClassVar[bool] = False

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.engine = plan.engine
        self.chains = Chains()
        self.proxy = plan.daemon.userland_proxy or not self.engine.since(1, 7)
        self.created: list[Segment] = []

    def rules(self, source: str = "") -> Ruleset:
        """The whole ruleset."""
        if self.engine.since(1, 13) and self.plan.daemon.ip_forward and not self.plan.machine.ip_forward:
            self.chains.policies["filter", "FORWARD"] = "DROP"
        self.start()
        if self.plan.daemon.swarm is not None:
            self.start_ingress()
        for step in self.plan.steps:
            if isinstance(step, Segment):
                if step.bridge is not None:
                    self.network(step, step.bridge)
                    self.created.append(step)
                    self.arrange()
            elif isinstance(step, Attachment):
                self.endpoint(step, _bridge(step.segment))
            elif isinstance(step, Published):
                self.port(step, _bridge(step.attachment.segment))
            elif isinstance(step, Linked):
                self.link(step, _bridge(step.parent.segment))
            else:
                self.ingress(step)
        return parse_ruleset(self.chains.text(), source=source or f"Docker {self.engine}")

    # ---------------------------------------------------------------- what a generation may say for itself

    def start(self) -> None:
        """What the daemon writes before its first network."""
        self.nat_jumps()

    def arrange(self) -> None:
        """What is put back to the head of FORWARD after each network."""

    def network(self, net: Segment, br: str) -> None:
        """A bridge network is created."""
        raise NotImplementedError

    def endpoint(self, place: Attachment, br: str) -> None:
        """A container joins a bridge network."""

    def port(self, port: Published, br: str) -> None:
        """A port is published."""
        raise NotImplementedError

    def link(self, link: Linked, br: str) -> None:
        """A legacy link is opened where icc is off: both directions, by port."""
        for rule in link_rules(link, br):
            self.chains.tail("filter", "DOCKER", rule)

    # ---------------------------------------------------------------- nat

    def nat_jumps(self) -> None:
        """What is for the host itself goes to nat DOCKER; from the host, not what is for 127.0.0.0/8: that is the
        userland proxy's."""
        self.chains.make("nat", "DOCKER")
        self.chains.tail("nat", "PREROUTING", f"{TO_LOCAL} -j DOCKER")
        self.chains.tail("nat", "OUTPUT", f"{'! -d 127.0.0.0/8 ' if self.proxy else ''}{TO_LOCAL} -j DOCKER")

    def masquerade(self, net: Segment, br: str) -> None:
        """Outgoing connections get an address of the host; without the proxy, the host's own into the bridge too."""
        if net.mode == "routed":
            if net.masquerade and self.proxy and self.skip_dnat:
                self.chains.head("nat", "DOCKER", f"-i {br} -j RETURN")
            return
        target = "MASQUERADE"
        if net.host_ip is not None and self.engine.since(20, 10):
            target = f"SNAT --to-source {net.host_ip}"
        if net.masquerade:
            out = f"! -o {br}" if self.engine.since(1, 3) else f"! -d {net.text}"
            self.chains.head("nat", "POSTROUTING", f"-s {net.text} {out} -j {target}")
            if self.proxy and self.skip_dnat:
                self.chains.head("nat", "DOCKER", f"-i {br} -j RETURN")
        if not self.proxy:
            self.chains.head("nat", "POSTROUTING", f"-o {br} -m addrtype --src-type LOCAL -j {target}")

    def dnat(self, port: Published, br: str) -> None:
        """Nat DOCKER: host port to container port; with the proxy, containers of the same bridge go through it."""
        on = f"-d {port.host_ip}/32 " if port.host_ip is not None else ""
        via = f"! -i {br} " if self.proxy else ""
        self.chains.tail(
            "nat", "DOCKER",
            f"{on}{via}{match_port(port.protocol, port.host_port)} "
            f"-j DNAT --to-destination {port.attachment.text}:{port.container_port}")

    def hairpin(self, port: Published) -> None:
        """A container that reaches itself through its published port."""
        address = port.attachment.text
        self.chains.tail(
            "nat", "POSTROUTING",
            f"-s {address}/32 -d {address}/32 {match_port(port.protocol, port.container_port)} -j MASQUERADE")

    # ---------------------------------------------------------------- swarm

    ingress_chain: ClassVar[str] = "FORWARD"

    def start_ingress(self) -> None:
        """DOCKER-INGRESS, before everything else of nat."""
        self.chains.make("nat", "DOCKER-INGRESS")
        self.chains.make("filter", "DOCKER-INGRESS")
        for chain in ("PREROUTING", "OUTPUT"):
            self.chains.head("nat", chain, f"{TO_LOCAL} -j DOCKER-INGRESS")
        for table in ("nat", "filter"):
            self.chains.tail(table, "DOCKER-INGRESS", "-j RETURN")
        self.chains.head("filter", self.ingress_chain, "-j DOCKER-INGRESS")
        self.arrange()

    def ingress(self, step: Ingress) -> None:
        """A port that swarm publishes; the newest comes first."""
        dport = match_port(step.protocol, step.port)
        sport = match_port(step.protocol, step.port, "sport")
        self.chains.head("nat", "POSTROUTING", f"-o {GATEWAY_BRIDGE} -m addrtype --src-type LOCAL -j MASQUERADE")
        self.chains.head("nat", "DOCKER-INGRESS", f"{dport} -j DNAT --to-destination {step.address}:{step.port}")
        self.chains.head("filter", "DOCKER-INGRESS", f"{sport} {ESTABLISHED}")
        self.chains.head("filter", "DOCKER-INGRESS", f"{dport} -j ACCEPT")


def match_port(protocol: str, port: int, side: str = "dport") -> str:
    """The test of a protocol and a port."""
    return f"-p {protocol} -m {protocol} --{side} {port}"


def accept_port(port: Published, br: str) -> str:
    """The filter rule that lets others than the bridge's own containers in to a published port."""
    return (f"-d {port.attachment.text}/32 ! -i {br} -o {br} {match_port(port.protocol, port.container_port)} "
            "-j ACCEPT")


def link_rules(link: Linked, br: str) -> tuple[str, str]:
    """Both directions of a link."""
    parent, child, on = link.parent.text, link.child.text, f"-i {br} -o {br}"
    return (
        f"-s {parent}/32 -d {child}/32 {on} {match_port(link.protocol, link.port)} -j ACCEPT",
        f"-s {child}/32 -d {parent}/32 {on} {match_port(link.protocol, link.port, 'sport')} -j ACCEPT",
    )


def internal_drops(net: Segment, br: str) -> tuple[str, str]:
    """What keeps an internal network apart: nothing but its subnet leaves or enters its bridge."""
    return f"! -d {net.text} -i {br} -j DROP", f"! -s {net.text} -o {br} -j DROP"


def icc_target(net: Segment) -> str:
    """The verdict between two containers of a network."""
    return "ACCEPT" if net.icc else "DROP"


def _bridge(net: Segment) -> str:
    assert net.bridge is not None, "only bridge networks come here"
    return net.bridge

"""What the kinds of findings look at: a host's rules with the sets of packets that reach and match them.

Everything that takes time is computed when first asked for. Sets are of packets as they arrive; ``matched`` of a rule
is every packet that it could match, whatever undecided rules in front of it do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from fastpath.analysis.lint.model import Finding, Kind, Severity
from fastpath.analysis.query.conditions import Condition
from fastpath.analysis.query.names import Names
from fastpath.analysis.query.sets import to_set
from fastpath.analysis.query.text import parse_condition
from fastpath.host.model import Host, Interface
from fastpath.packets.packet import Packet
from fastpath.packets.schema import LOCAL, Verdict
from fastpath.reference import Reference
from fastpath.reference.program import Act, CompiledRule, Program
from fastpath.ruleset.model import Rule, RuleRef, Ruleset
from fastpath.symbolic import HeaderSpace, HostSets, PacketSet

DECIDING = (Act.ACCEPT, Act.DROP, Act.REJECT, Act.NAT, Act.UNDECIDED)
"""What a rule does that ends a packet's walk through the table."""


KEEP = "leave it: Docker writes it, and would write it again"
"""The suggestion for rules of Docker's."""


class Context:
    """One host under lint.

    Attributes:
        host: rules and surroundings.
        assume: what undecided matches are taken for.
        refs: rules and policies by id.
        rules: the rules themselves by id (policies have none).
        program: the rules as the reference reads them: what each does, and whether it can be decided.
    """

    def __init__(self, host: Host, assume: Mapping[str | int, str] | None = None, other: Ruleset | None = None) -> None:
        self.host = host
        self.assume = dict(assume or {})
        self.other = other
        self.refs = host.ruleset.refs()
        self.program = Program(host, self.assume)
        self.rules: dict[int, Rule] = {}
        self.chains: dict[tuple[str, str], list[RuleRef]] = {}
        by_place = {(t.name, c.name): c.rules for t in host.ruleset.tables for c in t.chains}
        for place in by_place:
            self.chains[place] = []
        for ref in self.refs:
            if ref.number:
                self.rules[ref.id] = by_place[ref.table, ref.chain][ref.number - 1]
                self.chains[ref.table, ref.chain].append(ref)

    # ------------------------------------------------------------------------------------------------ sets

    @cached_property
    def space(self) -> HeaderSpace:
        """The header space of the host."""
        return HeaderSpace.of(self.host)

    @cached_property
    def sets(self) -> HostSets:
        """What becomes of all packets on the host."""
        return HostSets(self.space, self.host, assume=self.assume)

    @cached_property
    def names(self) -> Names:
        """What names stand for on the host."""
        return Names.of(self.host)

    def matched(self, ref: RuleRef) -> PacketSet:
        """The packets that a rule can match."""
        return self.sets.matched[ref.id]

    def reached(self, ref: RuleRef) -> PacketSet:
        """The packets that come to a rule."""
        return self.sets.reached[ref.id]

    def entering(self, place: tuple[str, str]) -> PacketSet:
        """The packets that come into a chain that has rules."""
        return self.reached(self.chains[place][0])

    def set_of(self, condition: Condition | str) -> PacketSet:
        """The packets that a condition on arriving fields describes."""
        found = parse_condition(condition) if isinstance(condition, str) else condition
        return to_set(found, self.space, self.names)

    def with_verdict(self, *verdicts: Verdict) -> PacketSet:
        """The packets that meet one of the fates."""
        found = self.space.nothing
        for verdict, packets in self.sets.fates("verdict").items():
            if verdict in verdicts:
                found = found | packets
        return found

    def sets_of(self, variant: Host) -> HostSets:
        """What becomes of all packets on a host that differs from this one in its rules, not in their interfaces."""
        self.space.hosts = (variant, self.host)
        return HostSets(self.space, variant, assume=self.assume)

    @cached_property
    def through(self) -> PacketSet:
        """The packets that surely get through."""
        return self.with_verdict(Verdict.FORWARD, Verdict.LOCAL_IN, Verdict.LOCAL_OUT)

    @cached_property
    def ordinary(self) -> PacketSet:
        """Ordinary first packets: nothing unusual in their headers."""
        return self.set_of("state == auto and tcp_flags == SYN and icmp_type == 8 and icmp_code == 0 and frag == 0 and "
                           "ttl == 64 and tos == 0 and length == 60 and mark == 0 and connmark == 0 and ctdir == 0 and "
                           "ctstatus == 0 and ctorigdst == 0.0.0.0 and ctorigdstport == 0 and pkttype == unicast")

    @cached_property
    def as_delivered(self) -> PacketSet:
        """Packets whose header does not claim more of their flow than their state."""
        return self.set_of("ctdir == 0 and ctstatus == 0 and ctorigdst == 0.0.0.0 and ctorigdstport == 0")

    def witness(self, packets: PacketSet) -> Packet:
        """A packet of a set: an ordinary one where there is any."""
        usual = packets & self.ordinary
        return (usual if usual else packets).witness()

    # ------------------------------------------------------------------------------------------------ rules

    def act(self, ref: RuleRef) -> Act:
        """What a rule does when it matches."""
        return self.compiled(ref).act

    def compiled(self, ref: RuleRef) -> CompiledRule:
        """The rule as the reference reads it."""
        return self.program.rules[ref.id]

    def all_rules(self) -> Iterator[RuleRef]:
        """Every rule, policies left out."""
        return (ref for ref in self.refs if ref.number)

    def without(self, refs: Iterable[RuleRef]) -> Host:
        """The host without some rules."""
        gone = {(r.table, r.chain, r.number) for r in refs}
        tables = tuple(
            replace(t, chains=tuple(
                replace(c, rules=tuple(
                    rule for n, rule in enumerate(c.rules, 1) if (t.name, c.name, n) not in gone))
                for c in t.chains))
            for t in self.host.ruleset.tables)
        return self.host.with_ruleset(replace(self.host.ruleset, tables=tables))

    @cached_property
    def side_effects(self) -> tuple[RuleRef, ...]:
        """Rules that do something beside the packet's fate: log, count quotas, mark connections and the like."""
        return tuple(
            ref for ref in self.all_rules()
            if self.act(ref) in (Act.NOTHING, Act.CHANGE, Act.UNDECIDED) and self.rules[ref.id].target is not None)

    @cached_property
    def reference(self) -> Reference:
        """The reference, ready to trace packets."""
        return Reference(self.host, assume=self.assume)

    @cached_property
    def parts(self) -> tuple[PacketSet, ...]:
        """The packets by fate and deciding rule."""
        return tuple(self.sets.fates(("verdict", "rule")).values())

    # ------------------------------------------------------------------------------------------------ Docker

    @cached_property
    def bridges(self) -> tuple[str, ...]:
        """Bridges that containers may be behind: ``docker0``, ``br-...``, and what is a bridge by its kind."""
        return tuple(i.name for i in self.host.interfaces if self._is_bridge(i))

    @staticmethod
    def _is_bridge(interface: Interface) -> bool:
        name = interface.name
        return interface.kind == "bridge" or name.startswith("br-") or name in ("docker0", "docker_gwbridge")

    @cached_property
    def outside(self) -> tuple[str, ...]:
        """Interfaces towards other machines: those with the default route, else all that are no bridge, no port of
        one, and not ``lo``."""
        routed = dict.fromkeys(
            r.dev for r in self.host.routes if r.destination.mask == 0 and r.dev and r.dev not in self.bridges)
        if routed:
            return tuple(routed)
        return tuple(i.name for i in self.host.interfaces
                     if i.name not in ("lo", LOCAL) and i.name not in self.bridges and i.master is None
                     and i.kind != "veth")

    @staticmethod
    def is_managed(ref: RuleRef | None, rule: Rule | None = None) -> bool:
        """Whether Docker keeps the rule: it stands in a chain of Docker's (but for DOCKER-USER), or jumps to one."""
        if ref is None:
            return False
        if ref.chain.startswith("DOCKER"):
            return ref.chain != "DOCKER-USER" or ref.text == "-A DOCKER-USER -j RETURN"
        target = rule.target.name if rule is not None and rule.target is not None else ""
        bridge = rule is not None and any(
            t is not None and (str(t.value).startswith("br-") or t.value == "docker0")
            for t in (rule.in_interface, rule.out_interface))
        return target.startswith("DOCKER") or (bridge and ref.chain in ("FORWARD", "PREROUTING", "POSTROUTING"))

    # ------------------------------------------------------------------------------------------------ findings

    def finding(
        self, kind: Kind, message: str, ref: RuleRef | None = None, *, severity: Severity | None = None,
        suggestion: str = "", related: Iterable[tuple[RuleRef, str]] = (), witness: Packet | None = None,
        witness_note: str = "", chain: tuple[str, str] | None = None, managed: bool | None = None,
    ) -> Finding:
        """A finding, with what the rule tells filled in; about rules that Docker writes it is a note."""
        rule = self.rules.get(ref.id) if ref is not None else None
        if managed is None:
            managed = self.is_managed(ref, rule)
        level = kind.severity if severity is None else severity
        return Finding(
            kind, message, ref, chain if ref is None else (ref.table, ref.chain),
            Severity.NOTE if managed else level, KEEP if managed else suggestion, tuple(related), witness,
            witness_note, managed,
            rule.line if rule is not None else self._policy_line(ref, chain))

    def _policy_line(self, ref: RuleRef | None, chain: tuple[str, str] | None) -> int:
        """The line of a chain's declaration in the save file."""
        if ref is not None:
            chain = (ref.table, ref.chain)
        table = ""
        for number, line in enumerate(self._lines, 1):
            if line.startswith("*"):
                table = line[1:].strip()
            elif chain is not None and table == chain[0] and line.startswith(f":{chain[1]} "):
                return number
        return 0

    @cached_property
    def _lines(self) -> tuple[str, ...]:
        path = Path(self.host.ruleset.source)
        try:
            return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
        except (OSError, UnicodeDecodeError):
            return ()

    @property
    def save_text(self) -> str:
        """The text of the save file, where there is one."""
        return "\n".join(self._lines)

"""The ways of a packet through a host.

:class:`Builder` writes down netfilter's order of hooks and tables, with the kernel's own decisions between them
(fragments, routing, TTL) as ops beside the rules. ``stages.py`` cuts that into stages.

Two ways of one host exist: routing decides the egress interface, or the packets bring it (``given_oif``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from fastpath.compiler import targets
from fastpath.compiler.fields import (
    TOUCHED_DST,
    TOUCHED_MARK,
    TRUE,
    Condition,
    CtState,
    Values,
    all_of,
    any_of,
    equals,
    masked_equals,
    none_of,
    test,
)
from fastpath.compiler.interfaces import NONE, InterfaceTable
from fastpath.compiler.lower import Context, rule_condition
from fastpath.compiler.program import Act, Block, Effect, End, Op
from fastpath.compiler.routes import RouteMap
from fastpath.host.model import Host
from fastpath.kernels import codes
from fastpath.packets.schema import LOCAL, Hook, Verdict
from fastpath.ruleset.model import Chain, Rule, Target

MUTATES: dict[int, tuple[str, ...]] = {
    codes.DST_ADDR: ("dst",), codes.DST_MAP: ("dst",), codes.DST_PORT: ("dport",), codes.DST_PORTS: ("dport",),
    codes.DST_SHIFT: ("dport",), codes.SRC_ADDR: ("src",), codes.SRC_MAP: ("src",), codes.SRC_PORT: ("sport",),
    codes.SRC_PORTS: ("sport",), codes.MARK: ("mark",), codes.MARK_RESTORE: ("mark",), codes.CONNMARK: ("connmark",),
    codes.MARK_SAVE: ("connmark",), codes.TTL_SET: ("ttl",), codes.TTL_ADD: ("ttl",), codes.TTL_SUB: ("ttl",),
    codes.TOS: ("tos",), codes.NOTRACK: ("ctstate",), codes.STATUS_DST: ("ctstatus",), codes.STATUS_SRC: ("ctstatus",),
    codes.TOUCH: ("touched",),
}
"""The bases that each effect changes."""


@dataclass(frozen=True)
class Step:
    """One item of a way: a block of ops, walked like a builtin chain (``call``) or in place.

    ``branch`` is True where its ops may lead to the ways named in ``to`` instead of the next step.
    """

    key: str
    blocks: Mapping[str, Block]
    guard: Condition = TRUE
    to: tuple[str, ...] = ()


def _tested(condition: Condition) -> set[str]:
    return {f.base for term in condition for f, _ in term.tests}


def tested(step: Step) -> set[str]:
    """The bases that a step looks at."""
    return _tested(step.guard).union(*(_tested(op.condition) for b in step.blocks.values() for op in b.ops))


def mutated(step: Step, *, terminal: bool) -> set[str]:
    """The bases that a step changes; without `terminal` only what its own later ops could see."""
    found: set[str] = set()
    for block in step.blocks.values():
        for op in block.ops:
            if terminal or op.act is not Act.ACCEPT:
                for effect in op.effects:
                    found.update(MUTATES.get(effect.code, ()))
    return found


def _effect_step(key: str, effect: Effect) -> Step:
    return Step(key, {key: Block((Op(TRUE, effects=(effect,)),), Hook.ROUTE)})


@dataclass
class Ways:
    """Named ways (lists of steps), the first two of which are entered by packets: ``arriving`` and ``local``."""

    steps: dict[str, list[Step]] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)


class Builder:
    """Lowers one host. Chains are lowered once per hook context in which they are reachable."""

    def __init__(self, host: Host, assume: Mapping[str | int, str], given_oif: bool, conntrack: bool) -> None:
        self.host = host
        self.assume = assume
        self.given_oif = given_oif
        self.conntrack = conntrack
        self.routes = RouteMap(host)
        patterns, names = [], [i.name for i in host.interfaces]
        for table in host.ruleset.tables:
            for chain in table.chains:
                for rule in chain.rules:
                    patterns += [str(t.value) for t in (rule.in_interface, rule.out_interface) if t is not None]
        for ipset in host.ipsets:
            if "iface" in ipset.type:
                patterns += [e for entry in ipset.entries for e in entry.elements if isinstance(e, str)]
        self.interfaces = InterfaceTable.build(names, patterns)
        self.refs = {(r.table, r.chain, r.number): r.id for r in host.ruleset.refs()}

    # ---------------------------------------------------------------------------------------- where packets go out

    @cache  # noqa: B019
    def _oif_by_destination(self, made_here: bool) -> dict[int, Values]:
        """Interface id -> destinations that leave by it."""
        found: dict[int, list[tuple[int, int]]] = {}
        for interval, lookup in zip(self.routes.intervals, self.routes.lookups, strict=True):
            if made_here and self.delivered_here(interval[0]):
                found.setdefault(self.interfaces.id("lo"), []).append(interval)
            elif lookup is not None and lookup.dev is not None:
                found.setdefault(self.interfaces.id(lookup.dev), []).append(interval)
        return {i: Values.of(v) for i, v in found.items()}

    def delivered_here(self, address: int) -> bool:
        """True where the host's own packet to `address` loops back through lo."""
        lookup = self.routes.fib.lookup(address)
        return address == 0 or (lookup is not None and lookup.type == "local")

    def context(self, hook: str, *, made_here: bool, tracked: bool = True, iif: int | None = None) -> Context:
        """The view of rules at a hook."""
        if hook in ("PREROUTING", "INPUT"):
            def oif(ids: Values) -> Condition:
                return TRUE if NONE in ids else ()
        elif self.given_oif:
            def oif(ids: Values) -> Condition:
                return test("oif", ids)
        else:
            by_destination = self._oif_by_destination(made_here)

            def oif(ids: Values) -> Condition:
                return any_of(*(test("dst", v) for i, v in by_destination.items() if i in ids))
        if made_here and iif is None:
            iif = NONE
        return Context(
            self.host, self.interfaces, self.routes, hook, iif, oif, tracked, self.conntrack, made_here, self.assume
        )

    # ---------------------------------------------------------------------------------------------- rules to ops

    def table_step(
        self, table: str, chain: str, context: Context, name: str, *, always: bool = False
    ) -> Step | None:
        """A chain with all that it reaches, or None where the host has none such, or (unless `always`) where the
        kernel would not walk it: nat without connection tracking."""
        found = self.host.ruleset.table(table)
        base = found.chain(chain) if found is not None else None
        if found is None or base is None:
            return None
        if table == "nat" and not self.conntrack and not always:
            return None
        blocks: dict[str, Block] = {}
        pending = [base]
        chains = {c.name: c for c in found.chains}
        while pending:
            here = pending.pop()
            key = f"{name}:{table}:{here.name}"
            if key in blocks:
                continue
            blocks[key] = self.block(table, here, context, name, blocks)
            for rule in here.rules:
                if rule.target is not None and rule.target.name in chains:
                    pending.append(chains[rule.target.name])
        guard = equals("ctstate", CtState.NEW) if table == "nat" else TRUE
        return Step(f"{name}:{table}:{chain}", blocks, guard)

    def block(self, table: str, chain: Chain, context: Context, name: str, blocks: dict[str, Block]) -> Block:
        """One chain, lowered; helper blocks that its targets need are added to `blocks`."""
        ops = []
        for number, rule in enumerate(chain.rules, 1):
            ref = self.refs[table, chain.name, number]
            condition = rule_condition(rule, ref, context)
            ops.append(self.rule_op(table, rule, ref, condition, context, name, blocks))
        return Block(
            tuple(ops),
            Hook[context.hook],
            None if chain.policy is None else Act(chain.policy.lower()),
            self.refs.get((table, chain.name, 0), -1),
            table == "filter",
        )

    def rule_op(
        self, table: str, rule: Rule, ref: int, condition: Condition, context: Context, name: str,
        blocks: dict[str, Block],
    ) -> Op:
        """One rule as an op."""
        op = Op(condition, ref=ref, counted=True)
        target = rule.target
        if target is None:
            return op
        if not target.known or target.name in targets.UNDECIDED:
            return replace(op, act=Act.UNDECIDED)
        if target.name in targets.VERDICTS:
            return replace(op, act=targets.VERDICTS[target.name])
        found = self.host.ruleset.table(table)
        if found is not None and found.chain(target.name) is not None:
            return replace(op, act=Act.GOTO if target.goto else Act.JUMP, chain=f"{name}:{table}:{target.name}")
        source = context.hook in ("POSTROUTING", "INPUT")
        match target.name:
            case "DNAT":
                return replace(op, act=Act.ACCEPT, effects=targets.nat_effects(target, source=False))
            case "SNAT":
                return replace(op, act=Act.ACCEPT, effects=targets.nat_effects(target, source=True))
            case "NETMAP":
                return replace(op, act=Act.ACCEPT, effects=targets.netmap_effects(target, source))
            case "MASQUERADE" | "REDIRECT":
                chosen = self.masquerade(target, ref, context) if source else self.redirect(target, ref, context)
                return replace(op, act=Act.GOTO, chain=self.shared(chosen, ref, context, name, blocks))
        effects = targets.mark_effects(target)
        if context.tracked:
            effects = tuple(e for e in effects if e.code != codes.NOTRACK)
        return replace(op, effects=effects)

    def shared(self, ops: Iterable[Op], ref: int, context: Context, name: str, blocks: dict[str, Block]) -> str:
        """The key of a block with these ops for rule `ref`; equal blocks are one where the rule's id is not asked for."""
        found = tuple(ops)
        if name != "alone" and not any(op.act is Act.DROP for op in found):
            found = tuple(replace(op, ref=-1) for op in found)
        key = f"{name}:{hash(found)}"
        while key in blocks and blocks[key].ops != found:
            key += "'"
        blocks[key] = Block(found, Hook[context.hook])
        return key

    @cache  # noqa: B019 (one builder lives as long as one compilation)
    def _masquerade_addresses(self, made_here: bool) -> dict[int | None, Condition]:
        """Address that MASQUERADE takes -> the packets for which it does."""
        by_address: dict[tuple[int | None, int | None], list[tuple[int, int]]] = {}
        fib = self.routes.fib
        for interval, lookup in zip(self.routes.intervals, self.routes.lookups, strict=True):
            if self.given_oif:
                for i, dev in enumerate(self.interfaces.names):
                    by_address.setdefault((i, fib.masquerade_address(dev, interval[0])), []).append(interval)
                continue
            dev = lookup.dev if lookup is not None else None
            if made_here and self.delivered_here(interval[0]):
                dev = "lo"
            if dev is not None:
                hop = lookup.gateway if lookup is not None and lookup.gateway is not None else interval[0]
                by_address.setdefault((None, fib.masquerade_address(dev, hop)), []).append(interval)
        wanted: dict[int | None, list[Condition]] = {}
        for (interface, address), intervals in by_address.items():
            there = test("dst", Values.of(intervals))
            wanted.setdefault(address, []).append(
                there if interface is None else all_of(equals("oif", interface), there)
            )
        return {address: any_of(*conditions) for address, conditions in wanted.items()}

    def masquerade(self, target: Target, ref: int, context: Context) -> Iterable[Op]:
        """The address of the egress interface, by destination (or by given interface and destination)."""
        status = Effect(codes.STATUS_SRC)
        by_address = self._masquerade_addresses(context.made_here)
        for address, condition in by_address.items():
            if address is not None:
                effects = (Effect(codes.SRC_ADDR, address), *targets.to_ports(target, True), status)
                yield Op(condition, Act.ACCEPT, ref=ref, effects=effects)
        if None in by_address:
            yield Op(TRUE, Act.DROP, ref=ref)

    def redirect(self, target: Target, ref: int, context: Context) -> Iterable[Op]:
        """The first address of the ingress interface; 127.0.0.1 for the host's own packets."""
        ports = (*targets.to_ports(target, False), Effect(codes.STATUS_DST))
        if context.made_here:
            loopback = 0x7F000001 if self.host.ruleset.family == 4 else 1
            yield Op(TRUE, Act.ACCEPT, ref=ref, effects=(Effect(codes.DST_ADDR, loopback), *ports))
            return
        for i, name in enumerate(self.interfaces.names):
            address = self.routes.fib.first_address(name)
            if address is not None:
                yield Op(equals("iif", i), Act.ACCEPT, ref=ref, effects=(Effect(codes.DST_ADDR, address), *ports))
        yield Op(TRUE, Act.DROP, ref=ref)

    # ------------------------------------------------------------------------------------------------- routing

    def _per_interface(self, key: str, default: int, combine: str) -> dict[int, Values]:
        """Effective value of an interface sysctl -> ids with it (``all`` combined in by ``or``, ``max`` or not)."""
        found: dict[int, list[int]] = {}
        for i, name in enumerate(self.interfaces.names):
            own = self.host.sysctl(f"net.ipv4.conf.{name}.{key}", default)
            everywhere = self.host.sysctl(f"net.ipv4.conf.all.{key}", 0)
            value = own
            if combine == "max":
                value = max(own, everywhere)
            elif combine == "or":
                value = int(bool(own or everywhere))
            found.setdefault(value, []).append(i)
        return {value: Values.single(*ids) for value, ids in found.items()}

    def _iif_where(self, key: str, combine: str = "or", default: int = 0) -> Condition:
        ids = self._per_interface(key, default, combine).get(1, Values(()))
        return test("iif", ids)

    def refused_sources(self) -> Condition:
        """Sources that reverse-path checking refuses (fib_validate_source)."""
        parts: list[Condition] = []
        accept_local = self._iif_where("accept_local")
        own = all_of(test("src", self.routes.own_addresses), none_of(accept_local))
        for mode, ids in self._per_interface("rp_filter", 0, "max").items():
            on = test("iif", ids)
            if mode == 0:
                parts.append(all_of(on, own))
                continue
            for i in range(len(self.interfaces.names)):
                if i not in ids:
                    continue
                good: list[bool] = []
                for lookup in self.routes.lookups:
                    fine = lookup is not None and lookup.type == "unicast"
                    if mode == 1:
                        fine = fine and lookup is not None and self.interfaces.id(lookup.dev or "") == i
                    good.append(fine)
                local = self.routes.where(lu is not None and lu.type == "local" for lu in self.routes.lookups)
                refused = none_of(any_of(
                    test("src", self.routes.where(good)), all_of(test("src", local), accept_local)
                ))
                parts.append(all_of(equals("iif", i), refused))
        return any_of(*parts)

    def routing_arriving(self) -> Block:
        """The routing decision for a packet that arrives (ip_route_input): martians, delivery, forwarding, TTL."""
        dropped = End(Verdict.DROP, Hook.ROUTE)
        error = End(Verdict.ICMP_ERROR, Hook.ROUTE)
        here, on = End(stage="input"), End(stage="forward")
        ops: list[Op] = []

        def step(condition: Condition, end: End, oif: int | None = None) -> None:
            if condition:
                ops.append(Op(condition, Act.END, end=end, oif=oif))

        ttl = test("ttl", Values.of([(0, 1)]))
        if self.given_oif:
            step(equals("oif", self.interfaces.id(LOCAL)), here)
            step(ttl, error)
            for i in range(len(self.interfaces.names)):
                step(equals("oif", i), on, i)
            return Block(tuple(ops), Hook.ROUTE)
        forwarding = self._forwarding()
        localnet = self._iif_where("route_localnet")
        zero, limited = Values.single(0), Values.single(0xFFFFFFFF)
        loop = Values.of([(127 << 24, (128 << 24) - 1)])
        multicast = Values.of([(0xE << 28, (0xF << 28) - 1)])
        refused = self.refused_sources()
        src, dst = (lambda v: test("src", v)), (lambda v: test("dst", v))
        step(any_of(src(multicast), src(limited)), dropped)
        many = dst(multicast)
        step(all_of(many, none_of(dst(Values.single(0xE0000001)))), dropped)
        step(all_of(many, src(loop), none_of(localnet)), dropped)
        step(all_of(many, none_of(src(zero)), refused), dropped)
        step(many, here)
        broadcast = any_of(dst(limited), all_of(src(zero), dst(zero)))
        step(all_of(broadcast, none_of(src(zero)), refused), dropped)
        step(broadcast, here)
        step(any_of(src(zero), dst(zero)), dropped)
        step(all_of(dst(loop), none_of(localnet)), dropped)
        step(all_of(none_of(dst(loop)), src(loop), none_of(localnet)), dropped)
        lookups = self.routes.lookups
        of = {
            kind: dst(self.routes.where(lu is not None and lu.type == kind for lu in lookups))
            for kind in ("broadcast", "local", "blackhole", "unicast")
        }
        step(all_of(of["broadcast"], none_of(src(zero)), refused), dropped)
        step(of["broadcast"], here)
        step(all_of(of["local"], refused), dropped)
        step(of["local"], here)
        step(none_of(forwarding), dropped)
        step(of["blackhole"], dropped)
        step(none_of(of["unicast"]), error)
        step(refused, dropped)
        step(ttl, error)
        for oif, values in self._oif_by_destination(made_here=False).items():
            step(dst(values), on, oif)
        return Block(tuple(ops), Hook.ROUTE)

    def _forwarding(self) -> Condition:
        everywhere = self.host.sysctl("net.ipv4.ip_forward", 0)
        ids = [
            i for i, name in enumerate(self.interfaces.names)
            if self.host.sysctl(f"net.ipv4.conf.{name}.forwarding", everywhere)
        ]
        return test("iif", Values.single(*ids))

    def routing_local(self, again: bool) -> Block:
        """The routing decision for the host's own packet, at first and again behind nat OUTPUT."""
        dropped = End(Verdict.DROP, Hook.ROUTE)
        onward = End(stage="output" if again else "local-rules")
        ops: list[Op] = []
        if self.given_oif:
            local = self.interfaces.id(LOCAL)
            for i in range(len(self.interfaces.names)):
                oif = self.interfaces.id("lo") if i == local else i
                ops.append(Op(equals("oif", i), Act.END, end=onward, oif=oif))
            return Block(tuple(ops), Hook.ROUTE)
        for oif, values in self._oif_by_destination(made_here=True).items():
            ops.append(Op(test("dst", values), Act.END, end=onward, oif=oif))
        ops.append(Op(TRUE, Act.END, end=dropped))
        return Block(tuple(ops), Hook.ROUTE)

    def rerouted(self, bit: int) -> Block:
        """The kernel routes the host's packet again because rules changed it: a loopback source may not leave."""
        if self.given_oif:
            return Block((), Hook.ROUTE)
        everywhere = self.host.sysctl("net.ipv4.conf.all.route_localnet")
        leaving = [
            values for oif, values in self._oif_by_destination(made_here=True).items()
            if self.interfaces.names[oif] != "lo"
            and not (everywhere or self.host.sysctl(f"net.ipv4.conf.{self.interfaces.names[oif]}.route_localnet"))
        ]
        refused = all_of(
            none_of(masked_equals("touched", 0, bit)),
            test("src", Values.of([(127 << 24, (128 << 24) - 1)])),
            any_of(*(test("dst", v) for v in leaving)),
        )
        return Block((Op(refused, Act.END, end=End(Verdict.DROP, Hook.ROUTE)),), Hook.ROUTE)

    # ------------------------------------------------------------------------------------------------- the ways

    def ways(self) -> Ways:
        """All ways of the host."""
        ways = Ways()

        def rules(way: str, tables: Iterable[tuple[str, str]], **view: object) -> list[Step]:
            steps = []
            for table, chain in tables:
                early = table == "raw" and not way.startswith("loop")
                context = self.context(
                    chain, made_here=way in ("local-rules", "output", "output-post"), tracked=not early,
                    iif=self.interfaces.id("lo") if way.startswith("loop") else None,
                )
                step = self.table_step(table, chain, context, way)
                if step is not None:
                    steps.append(step)
            return steps

        fragments = Block(
            (Op(none_of(equals("frag", 0)), Act.END, end=End(Verdict.DROP, Hook.PREROUTING)),), Hook.PREROUTING
        )
        fragments_out = Block(
            (Op(none_of(equals("frag", 0)), Act.END, end=End(Verdict.DROP, Hook.OUTPUT)),), Hook.OUTPUT
        )
        incomplete = Block(
            (Op(none_of(equals("frag", 0)), Act.END, end=End(Verdict.DROP, Hook.ROUTE)),), Hook.ROUTE
        )
        defrag = [Step("defrag", {"defrag": fragments})] if self.conntrack else []
        reassembly = [] if self.conntrack else [Step("reassembly", {"reassembly": incomplete})]
        defrag_out = [Step("defrag-out", {"defrag-out": fragments_out})] if self.conntrack else []
        ways.steps["arriving"] = [
            *defrag,
            *rules("arriving", [("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("nat", "PREROUTING")]),
            Step("route", {"route": self.routing_arriving()}, to=("input", "forward")),
        ]
        ways.steps["input"] = [
            *reassembly,
            *rules("input", [("mangle", "INPUT"), ("filter", "INPUT"), ("security", "INPUT"), ("nat", "INPUT")]),
        ]
        ways.ends["input"] = End(Verdict.LOCAL_IN, Hook.INPUT)
        forward = rules("forward", [
            ("mangle", "FORWARD"), ("filter", "FORWARD"), ("security", "FORWARD"),
            ("mangle", "POSTROUTING"), ("nat", "POSTROUTING"),
        ])
        if any("ttl" in tested(s) | mutated(s, terminal=True) for s in forward):
            forward.insert(0, _effect_step("ttl-hop", Effect(codes.TTL_SUB, 1)))
        ways.steps["forward"] = forward
        ways.ends["forward"] = End(Verdict.FORWARD, Hook.POSTROUTING)
        ways.steps["local"] = [
            Step("route-local", {"route-local": self.routing_local(again=False)}, to=("local-rules",)),
        ]
        mangle = rules("local-rules", [("mangle", "OUTPUT")])
        if any(mutated(s, terminal=True) & {"mark", "tos"} for s in mangle):
            mangle.append(_effect_step("touch-mark", Effect(codes.TOUCH)))
            mangle.append(Step("reroute-mark", {"reroute-mark": self.rerouted(TOUCHED_MARK)}))
        nat = rules("local-rules", [("nat", "OUTPUT")])
        if any("dst" in mutated(s, terminal=True) for s in nat):
            nat.append(_effect_step("touch-dst", Effect(codes.TOUCH)))
            nat.append(Step("reroute-dst", {"reroute-dst": self.rerouted(TOUCHED_DST)}))
        ways.steps["local-rules"] = [
            *defrag_out,
            *rules("local-rules", [("raw", "OUTPUT")]),
            *mangle,
            *nat,
            Step("reroute", {"reroute": self.routing_local(again=True)}, to=("output",)),
        ]
        ways.steps["output"] = [
            *rules("output", [("filter", "OUTPUT"), ("security", "OUTPUT")]),
            *rules("output", [("mangle", "POSTROUTING"), ("nat", "POSTROUTING")]),
            Step("loop", {"loop": self._loop()}, to=("loop",)),
        ]
        ways.ends["output"] = End(Verdict.LOCAL_OUT, Hook.POSTROUTING)
        ways.steps["loop"] = [
            *rules("loop", [("raw", "PREROUTING"), ("mangle", "PREROUTING")]),
            *reassembly,
            *rules("loop", [("mangle", "INPUT"), ("filter", "INPUT"), ("security", "INPUT")]),
        ]
        ways.ends["loop"] = End(Verdict.LOCAL_IN, Hook.INPUT)
        return ways

    def _loop(self) -> Block:
        context = self.context("OUTPUT", made_here=True)
        lo = Values.single(self.interfaces.id("lo"), self.interfaces.id(LOCAL))
        return Block((Op(context.oif(lo), Act.END, end=End(stage="loop")),), Hook.POSTROUTING)


def conntrack_in_use(host: Host) -> bool:
    """True where the rules make the kernel track connections (and so put fragments together)."""
    tracking = {"conntrack", "state", "connmark", "connbytes", "connlabel", "connlimit", "helper", "cluster"}
    targets_ = {"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "CONNMARK", "CT", "NOTRACK", "CONNSECMARK", "SYNPROXY"}
    for table in host.ruleset.tables:
        for chain in table.chains:
            for rule in chain.rules:
                if any(m.module in tracking for m in rule.matches):
                    return True
                if rule.target is not None and rule.target.name in targets_:
                    return True
    return False


"""The ways of a packet through a host.

:class:`Builder` writes down netfilter's order of hooks and tables, with the kernel's own decisions between them
(fragments, routing, TTL) as ops beside the rules. ``stages.py`` cuts that into stages.

Two ways of one host exist: routing decides the egress interface, or the packets bring it (``given_oif``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial

from fastpath.compiler import targets
from fastpath.compiler.fields import (
    FALSE,
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
from fastpath.host.fib import ERROR_TYPES
from fastpath.host.model import Host
from fastpath.kernels import codes
from fastpath.packets.schema import LOCAL, Hook, Verdict
from fastpath.ruleset.model import Chain, Rule, Target

MUTATES: dict[int, tuple[str, ...]] = {
    codes.DST_NAT: ("dst", "dport", "ctstatus"), codes.SRC_NAT: ("src", "sport", "ctstatus"),
    codes.DST_MAP: ("dst", "ctstatus"), codes.SRC_MAP: ("src", "ctstatus"), codes.MARK: ("mark",),
    codes.MARK_RESTORE: ("mark",), codes.CONNMARK: ("connmark",), codes.MARK_SAVE: ("connmark",),
    codes.TTL_SET: ("ttl",), codes.TTL_ADD: ("ttl",), codes.TTL_SUB: ("ttl",), codes.TOS: ("tos",),
    codes.NOTRACK: ("ctstate", "notrack"), codes.NOTRACK_LATE: ("ctstate",), codes.TOUCH: ("touched",),
    codes.SET_OIF: ("oif",), codes.CONFIRM: ("ctstatus",),
}
"""The bases that each effect changes."""


FEW = 8
"""Answers of a builder's methods that are remembered: of one builder, in the main; those of older ones go."""

OF_CONNECTION = (codes.CONNMARK, codes.MARK_RESTORE, codes.MARK_SAVE)
"""Effects that need a connection: none before conntrack has run."""


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


def _no_interface(ids: Values) -> Condition:
    """Whether "no interface" is among the ids."""
    return TRUE if NONE in ids else FALSE


def _leaving_by(by_destination: Mapping[int, Values], ids: Values) -> Condition:
    """The condition that the destination's way out is one of the ids."""
    return test("dst", Values.of(interval for i, values in by_destination.items() if i in ids for interval in values))


def _to_address(code: int, address: int | None, ports: int) -> tuple[Effect, ...]:
    """NAT to one address; an address that is not known stays, and is flagged."""
    if address is None:
        return (Effect(codes.CHOICE), Effect(code, -1, -1, ports))
    return (Effect(code, address, address, ports),)


def _effect_step(key: str, effect: Effect) -> Step:
    return Step(key, {key: Block((Op(TRUE, effects=(effect,)),), Hook.ROUTE)})


def interface_names(host: Host) -> tuple[list[str], list[str]]:
    """The names of a host's interfaces, and the names and patterns that its rules and ipsets speak of."""
    patterns = []
    for table in host.ruleset.tables:
        for chain in table.chains:
            for rule in chain.rules:
                patterns += [str(t.value) for t in (rule.in_interface, rule.out_interface) if t is not None]
    for ipset in host.ipsets:
        if "iface" in ipset.type:
            patterns += [e for entry in ipset.entries for e in entry.elements if isinstance(e, str)]
    return [i.name for i in host.interfaces], patterns


@dataclass
class Ways:
    """Named ways (lists of steps), the first two of which are entered by packets: ``arriving`` and ``local``."""

    steps: dict[str, list[Step]] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)


class Builder:
    """Lowers one host. Chains are lowered once per hook context in which they are reachable."""

    def __init__(
        self, host: Host, assume: Mapping[str | int, str], given_oif: bool, conntrack: bool,
        interfaces: InterfaceTable | None = None,
    ) -> None:
        self.host = host
        self.assume = assume
        self.given_oif = given_oif
        self.conntrack = conntrack
        self.routes = RouteMap(host)
        self.sysctls = {key for key, _ in host.sysctls}
        self.interfaces = interfaces or InterfaceTable.build(*interface_names(host))
        self.on_rule: Callable[[], None] | None = None
        self.address_blocks: dict[tuple[str, str, int], str] = {}
        self.refs: dict[tuple[str, str, int], int] = {}
        for table in host.ruleset.tables:  # numbered as Ruleset.refs() does, without the text
            for chain in table.chains:
                for number in range(0 if chain.policy is not None else 1, len(chain.rules) + 1):
                    self.refs[table.name, chain.name, number] = len(self.refs)

    # ---------------------------------------------------------------------------------------- where packets go out

    @lru_cache(maxsize=FEW)  # noqa: B019
    def _oif_by_destination(self, made_here: bool, alone: bool = False) -> dict[int, Values]:
        """Interface id -> destinations that leave by it (for a chain alone without those that stay here)."""
        found: dict[int, list[tuple[int, int]]] = {}
        for interval, lookup in zip(self.routes.intervals, self.routes.lookups, strict=True):
            if made_here and self.delivered_here(interval[0]):
                found.setdefault(self.interfaces.id("lo"), []).append(interval)
            elif self.undecided_route(interval[0], made_here) or (
                alone and lookup is not None and lookup.type in ("local", "broadcast")
            ):
                continue
            elif lookup is not None and lookup.dev is not None:
                found.setdefault(self.interfaces.id(lookup.dev), []).append(interval)
        return {i: Values.of(v) for i, v in found.items()}

    def delivered_here(self, address: int) -> bool:
        """True where the host's own packet to `address` loops back through lo."""
        lookup = self.routes.fib.lookup(address)
        return address == 0 or (lookup is not None and (lookup.type == "local" or lookup.dev == "lo"))

    def undecided_route(self, address: int, made_here: bool) -> bool:
        """True where policy rules may send packets another way: everywhere but to this host."""
        sure = ("LOCAL",) if made_here else ("LOCAL", "BROADCAST")
        return bool(self.host.policy_rules) and self.routes.fib.local_type(address) not in sure and (
            not made_here or address != 0)

    def context(
        self, hook: str, *, made_here: bool = False, tracked: bool = True, looped: bool = False, alone: bool = False,
        first_oif: bool = False,
    ) -> Context:
        """The view of rules at a hook.

        Args:
            hook: its name.
            made_here: for the host's own packets, on their way out.
            tracked: conntrack has seen them.
            looped: for the host's own packets, back in through lo.
            alone: for packets of any kind: the chain is walked by itself.
            first_oif: the egress interface is that of the first look-up, though the destination may have changed.
        """
        if looped:
            iif: int | None = self.interfaces.id("lo")
        else:
            iif = NONE if made_here else None
        oif: Callable[[Values], Condition]
        if hook in ("PREROUTING", "INPUT"):
            oif = _no_interface
        elif self.given_oif:
            oif = self._given_oif(made_here, alone)
        elif first_oif:
            oif = partial(test, "oif")
        elif alone:
            oif = self._oif_alone()
        else:
            oif = partial(_leaving_by, self._oif_by_destination(made_here))
        oif = cache(oif)  # rules ask for the same few interfaces again and again
        return Context(
            self.host, self.interfaces, self.routes, hook, iif, oif, tracked, self.conntrack and not alone, made_here,
            looped, alone, self.assume,
        )

    def _given_oif(self, made_here: bool, alone: bool) -> Callable[[Values], Condition]:
        """Packets bring their egress interface; ``local`` stands for lo where the host made them, else for none."""
        local = Values.single(self.interfaces.id(LOCAL))
        shown = NONE if alone or not made_here else self.interfaces.id("lo")

        def oif(ids: Values) -> Condition:
            plain = ids.intersect(local.complement(16))
            return test("oif", plain.union(local) if shown in ids else plain)
        return oif

    def _oif_alone(self) -> Callable[[Values], Condition]:
        """Both kinds of packets come by; without a way out there is no interface."""
        here = equals("iif", self.interfaces.id(LOCAL))
        ways = tuple(
            (who, found, none_of(any_of(*(test("dst", v) for v in found.values()))))
            for who, found in ((here, self._oif_by_destination(True)),
                               (none_of(here), self._oif_by_destination(False, alone=True)))
        )

        def oif(ids: Values) -> Condition:
            parts = []
            for who, by_destination, nowhere in ways:
                out = _leaving_by(by_destination, ids)
                parts.append(all_of(who, any_of(out, nowhere if NONE in ids else FALSE)))
            return any_of(*parts)
        return oif

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
        guard = equals("ctstate", CtState.NEW) if table == "nat" and not always else TRUE
        return Step(f"{name}:{table}:{chain}", blocks, guard)

    def block(self, table: str, chain: Chain, context: Context, name: str, blocks: dict[str, Block]) -> Block:
        """One chain, lowered; helper blocks that its targets need are added to `blocks`."""
        ops = []
        for number, rule in enumerate(chain.rules, 1):
            ref = self.refs[table, chain.name, number]
            condition = rule_condition(rule, ref, context)
            if self.on_rule is not None:
                self.on_rule()
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
        if target.name in targets.VERDICTS:
            return replace(op, act=targets.VERDICTS[target.name])
        found = self.host.ruleset.table(table)
        if found is not None and found.chain(target.name) is not None:
            return replace(op, act=Act.GOTO if target.goto else Act.JUMP, chain=f"{name}:{table}:{target.name}")
        if not target.known:
            return replace(op, act=Act.UNDECIDED)
        source = context.hook in ("POSTROUTING", "INPUT")
        match target.name:
            case "DNAT":
                return replace(op, act=Act.ACCEPT, effects=targets.nat_effects(target, source=False))
            case "SNAT":
                return replace(op, act=Act.ACCEPT, effects=targets.nat_effects(target, source=True))
            case "NETMAP":
                return replace(op, act=Act.ACCEPT, effects=targets.netmap_effects(target, source))
            case "MASQUERADE" | "REDIRECT":
                ports = (name, target.name, targets.to_ports(target))
                block = self.address_blocks.get(ports)
                if block is None:
                    chosen = self.redirect if target.name == "REDIRECT" else self.masquerade
                    block = self.shared(chosen(target, ref, context), ref, context, name, blocks, ports)
                return replace(op, act=Act.GOTO, chain=block)
        if targets.is_undecided(target):
            return replace(op, act=Act.UNDECIDED)
        effects = targets.mark_effects(target)
        if context.tracked:
            effects = tuple(
                Effect(codes.NOTRACK_LATE) if e.code == codes.NOTRACK else e for e in effects
            )
        else:
            effects = tuple(e for e in effects if e.code not in OF_CONNECTION)
        return replace(op, effects=effects)

    def shared(
        self, ops: Iterable[Op], ref: int, context: Context, name: str, blocks: dict[str, Block],
        ports: tuple[str, str, int],
    ) -> str:
        """The key of a block with these ops for rule `ref`. Rules of one hook with the same ports share it, unless the
        rule's id is asked for: in a chain alone, or where a packet is dropped for want of an address."""
        found = tuple(ops)
        key = ":".join(map(str, ports))
        if name == "alone" or any(op.act is Act.DROP and op.condition for op in found):
            key += f":{ref}"
        else:
            found = tuple(replace(op, ref=-1) for op in found)
            self.address_blocks[ports] = key
        blocks[key] = Block(found, Hook[context.hook])
        return key

    @lru_cache(maxsize=FEW)  # noqa: B019
    def _masquerade_addresses(self, made_here: bool, alone: bool) -> dict[int | None, Condition]:
        """Address that MASQUERADE takes -> the packets for which it does."""
        by_address: dict[tuple[int | None, int | None], list[tuple[int, int]]] = {}
        fib = self.routes.fib
        local = self.interfaces.id(LOCAL)
        for interval, lookup in zip(self.routes.intervals, self.routes.lookups, strict=True):
            if self.given_oif:
                for i, dev in enumerate(self.interfaces.names):
                    out = dev if i != local else "lo" if made_here else ""
                    by_address.setdefault((i, fib.masquerade_address(out, interval[0])), []).append(interval)
                continue
            leaving = lookup.dev if lookup is not None else None
            gateway = lookup.gateway if lookup is not None else None
            if made_here and self.delivered_here(interval[0]):
                leaving, gateway = "lo", None
            elif alone:
                stays = lookup is not None and lookup.type in ("local", "broadcast") and not made_here
                gateway = None
                if leaving is None or stays or self.undecided_route(interval[0], made_here):
                    leaving = ""
            if leaving is not None:
                address = fib.masquerade_address(leaving, interval[0] if gateway is None else gateway)
                by_address.setdefault((None, address), []).append(interval)
        wanted: dict[int | None, list[Condition]] = {}
        for (interface, address), intervals in by_address.items():
            there = test("dst", Values.of(intervals))
            wanted.setdefault(address, []).append(
                there if interface is None else all_of(equals("oif", interface), there)
            )
        return {address: any_of(*conditions) for address, conditions in wanted.items()}

    def masquerade(self, target: Target, ref: int, context: Context) -> Iterable[Op]:
        """The address of the egress interface, by destination (or by given interface and destination)."""
        ports = targets.to_ports(target)
        yield Op(equals("src", 0), Act.ACCEPT, ref=ref)
        kinds = [(TRUE, context.made_here)]
        if context.alone:
            here = equals("iif", self.interfaces.id(LOCAL))
            kinds = [(here, True), (none_of(here), False)]
        for who, made_here in kinds:
            by_address = self._masquerade_addresses(made_here, context.alone)
            for address, condition in by_address.items():
                effects = _to_address(codes.SRC_NAT, address, ports)
                if address is not None or not self.host.complete:
                    yield Op(all_of(who, condition), Act.ACCEPT, ref=ref, effects=effects)
                else:
                    yield Op(all_of(who, condition), Act.DROP, ref=ref)

    def redirect(self, target: Target, ref: int, context: Context) -> Iterable[Op]:
        """The first address of the ingress interface; 127.0.0.1 for the host's own packets."""
        ports = targets.to_ports(target)
        loopback = _to_address(codes.DST_NAT, 0x7F000001 if self.host.ruleset.family == 4 else 1, ports)
        if context.made_here:
            yield Op(TRUE, Act.ACCEPT, ref=ref, effects=loopback)
            return
        if context.alone:
            yield Op(equals("iif", self.interfaces.id(LOCAL)), Act.ACCEPT, ref=ref, effects=loopback)
        for i, name in enumerate(self.interfaces.names):
            address = self.routes.fib.first_address(name)
            if address is not None:
                effects = _to_address(codes.DST_NAT, address, ports)
                yield Op(context.iif_in(Values.single(i)), Act.ACCEPT, ref=ref, effects=effects)
        if self.host.complete:
            yield Op(TRUE, Act.DROP, ref=ref)
        else:
            yield Op(TRUE, Act.ACCEPT, ref=ref, effects=_to_address(codes.DST_NAT, None, ports))

    # ------------------------------------------------------------------------------------------------- routing

    def _setting(self, key: str, interface: str) -> int:
        """A sysctl of an interface as the kernel uses it: the larger of its own (or the default's) and of ``all``."""
        default = self._sysctl(f"net.ipv4.conf.default.{key}", 0)
        own = self._sysctl(f"net.ipv4.conf.{interface}.{key}", default)
        return max(own, self._sysctl(f"net.ipv4.conf.all.{key}", 0))

    def _sysctl(self, key: str, default: int) -> int:
        """As ``Host.sysctl``, which looks through all of them."""
        return self.host.sysctl(key, default) if key in self.sysctls else default

    def _iif_where(self, key: str) -> Condition:
        ids = [i for i, name in enumerate(self.interfaces.names) if self._setting(key, name)]
        return test("iif", Values.single(*ids))

    def _forwarding(self) -> Condition:
        everywhere = self.host.sysctl("net.ipv4.ip_forward", 0)
        ids = [
            i for i, name in enumerate(self.interfaces.names)
            if self._sysctl(f"net.ipv4.conf.{name}.forwarding", everywhere)
        ]
        return test("iif", Values.single(*ids))

    def refused_sources(self) -> Condition:
        """Sources that may not come in on an interface (``fib_validate_source()``)."""
        own = test("src", self.routes.own_addresses)
        strict: dict[tuple[int, bool, bool, str], list[int]] = {}
        parts: list[Condition] = []
        bare = {
            i.name for i in self.host.interfaces
            if not any(a.family == self.host.ruleset.family for a in i.addresses)
        }
        for i, name in enumerate(self.interfaces.names):
            mode, accept = self._setting("rp_filter", name), bool(self._setting("accept_local", name))
            strict.setdefault((mode, accept, name in bare, name if mode else ""), []).append(i)
        for (mode, accept, is_bare, name), ids in strict.items():
            here = test("iif", Values.single(*ids))
            if mode == 0:
                if not accept:
                    parts.append(all_of(here, own))
                continue
            good = []
            for found in self.routes.lookups:
                fine = found is not None and (found.type == "unicast" or (found.type == "local" and accept))
                if fine and found is not None:
                    back = found.dev == name or (found.type == "local" and name == "lo")
                    fine = back or (not is_bare and mode != 1)
                good.append(fine)
            parts.append(all_of(here, none_of(test("src", self.routes.where(good)))))
        return any_of(*parts)

    def routing_arriving(self) -> Block:
        """The routing decision for a packet that arrives (``ip_route_input_slow()``)."""
        dropped, undecided = End(Verdict.DROP, Hook.ROUTE), End(Verdict.UNDECIDED, Hook.ROUTE)
        error = End(Verdict.ICMP_ERROR, Hook.ROUTE)
        here, on = End(stage="input"), End(stage="forward")
        ops: list[Op] = []

        def step(condition: Condition, end: End, oif: int | None = None) -> None:
            if condition:
                ops.append(Op(condition, Act.END, end=end, oif=oif))

        def forwarded() -> None:
            """``ip_forward()``: addressed to this host on the link, and alive for another hop."""
            step(none_of(equals("pkttype", 0)), dropped)
            step(test("ttl", Values.of([(0, 1)])), error)

        if self.given_oif:
            step(equals("oif", self.interfaces.id(LOCAL)), here)
            forwarded()
            for i in range(len(self.interfaces.names)):
                step(equals("oif", i), on, i)
            step(TRUE, dropped)  # no id is left, but a chain of steps has to end
            return Block(tuple(ops), Hook.ROUTE)
        forwarding = self._forwarding()
        localnet = self._iif_where("route_localnet")
        refused = self.refused_sources()
        zero, limited = Values.single(0), Values.single(0xFFFFFFFF)
        loop = Values.of([(127 << 24, (128 << 24) - 1)])
        multicast = Values.of([(0xE << 28, (0xF << 28) - 1)])

        def src(values: Values) -> Condition:
            return test("src", values)

        def dst(values: Values) -> Condition:
            return test("dst", values)

        def routed(*kinds: str) -> Condition:
            return dst(self.routes.where(found is not None and found.type in kinds for found in self.routes.lookups))

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
        step(all_of(any_of(dst(loop), src(loop)), none_of(localnet)), dropped)
        step(dst(Values.of(i for i in self.routes.intervals if self.undecided_route(i[0], False))), undecided)
        step(all_of(routed("broadcast", "local"), refused), dropped)
        step(routed("broadcast", "local"), here)
        step(none_of(forwarding), dropped)
        step(routed("blackhole"), dropped)
        nowhere = self.routes.where(found is None or found.type in ERROR_TYPES for found in self.routes.lookups)
        step(dst(nowhere), error)
        step(none_of(routed("unicast")), dropped)
        step(refused, dropped)
        forwarded()
        for oif, values in self._oif_by_destination(made_here=False).items():
            step(dst(values), on, oif)
        return Block(tuple(ops), Hook.ROUTE)

    def routing_local(self, to: str, note_oif: bool = False) -> Block:
        """The routing decision for the host's own packet; it goes on at the way `to`.

        With `note_oif` the egress interface becomes a value of the packet, for rules that see it though the
        destination changes.
        """
        onward = End(stage=to)
        ops: list[Op] = []

        def step(condition: Condition, oif: int) -> None:
            effects = (Effect(codes.SET_OIF, oif),) if note_oif else ()
            if condition:
                ops.append(Op(condition, Act.END, end=onward, oif=oif, effects=effects))

        if self.given_oif:
            for i in range(len(self.interfaces.names)):
                step(equals("oif", i), self.interfaces.id("lo") if i == self.interfaces.id(LOCAL) else i)
            ops.append(Op(TRUE, Act.END, end=End(Verdict.DROP, Hook.ROUTE)))
            return Block(tuple(ops), Hook.ROUTE)
        undecided = Values.of(i for i in self.routes.intervals if self.undecided_route(i[0], True))
        ops.append(Op(test("dst", undecided), Act.END, end=End(Verdict.UNDECIDED, Hook.ROUTE)))
        for oif, values in self._oif_by_destination(made_here=True).items():
            step(test("dst", values), oif)
        ops.append(Op(TRUE, Act.END, end=End(Verdict.DROP, Hook.ROUTE)))
        return Block(tuple(ops), Hook.ROUTE)

    def rerouted(self, bit: int) -> Block:
        """The kernel routes the host's packet again where rules changed it: without a route, or with a loopback source
        that would leave, it is dropped (``ip_route_me_harder()``)."""
        if self.given_oif:
            return Block((), Hook.ROUTE)
        by_destination = self._oif_by_destination(made_here=True)
        lost = none_of(any_of(*(test("dst", v) for v in by_destination.values())))
        names = self.interfaces.names
        leaving = any_of(*(
            test("dst", values) for oif, values in by_destination.items()
            if names[oif] != "lo" and not self._setting("route_localnet", names[oif])
        ))
        loopback = Values.of(
            (max(a, 127 << 24), min(b, (128 << 24) - 1)) for a, b in self.routes.intervals
            if self.routes.fib.local_type(a) in ("LOCAL", "UNICAST")
        )
        changed = none_of(masked_equals("touched", 0, bit))
        undecided = test("dst", Values.of(i for i in self.routes.intervals if self.undecided_route(i[0], True)))
        return Block((
            Op(all_of(changed, undecided), Act.END, end=End(Verdict.UNDECIDED, Hook.ROUTE)),
            Op(all_of(changed, any_of(lost, all_of(test("src", loopback), leaving))), Act.END,
               end=End(Verdict.DROP, Hook.ROUTE)),
        ), Hook.ROUTE)

    # ------------------------------------------------------------------------------------------------- the ways

    def ways(self) -> Ways:
        """All ways of the host."""
        ways = Ways()

        def rules(way: str, *tables: tuple[str, str], **view: bool) -> list[Step]:
            found = (
                self.table_step(
                    table, chain, self.context(chain, tracked=table != "raw" or way == "loop", **view), f"{way}.{chain}"
                )
                for table, chain in tables
            )
            return [step for step in found if step is not None]

        def whole(hook: Hook, key: str) -> list[Step]:
            """What a lone fragment comes to: held back until the others arrive."""
            end = End(Verdict.DROP, hook)
            return [Step(key, {key: Block((Op(none_of(equals("frag", 0)), Act.END, end=end),), hook)})]

        reassembly = [] if self.conntrack else whole(Hook.ROUTE, "reassembly")
        ways.steps["arriving"] = [
            *(whole(Hook.PREROUTING, "defrag") if self.conntrack else ()),
            *rules("arriving", ("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("nat", "PREROUTING")),
            Step("route", {"route": self.routing_arriving()}, to=("input", "forward")),
        ]
        ways.steps["input"] = [
            *reassembly,
            *rules("input", ("mangle", "INPUT"), ("filter", "INPUT"), ("security", "INPUT"), ("nat", "INPUT")),
        ]
        ways.ends["input"] = End(Verdict.LOCAL_IN, Hook.INPUT)
        forward = rules(
            "forward", ("mangle", "FORWARD"), ("filter", "FORWARD"), ("security", "FORWARD"),
            ("mangle", "POSTROUTING"), ("nat", "POSTROUTING"),
        )
        if any("ttl" in tested(s) | mutated(s, terminal=True) for s in forward):
            forward.insert(0, _effect_step("ttl-hop", Effect(codes.TTL_SUB, 1)))
        ways.steps["forward"] = forward
        ways.ends["forward"] = End(Verdict.FORWARD, Hook.POSTROUTING)

        mangle = rules("local-rules", ("mangle", "OUTPUT"), made_here=True)
        if any(mutated(s, terminal=True) & {"mark", "tos"} for s in mangle):
            mangle.insert(0, _effect_step("note-mark", Effect(codes.NOTE_MARK)))
            mangle.append(_effect_step("touch-mark", Effect(codes.TOUCH, TOUCHED_MARK)))
            mangle.append(Step("reroute-mark", {"reroute-mark": self.rerouted(TOUCHED_MARK)}))
        nat = rules("local-rules", ("nat", "OUTPUT"), made_here=True)
        changes = any("dst" in mutated(s, terminal=True) for s in nat) and not self.given_oif
        if changes:
            nat.append(_effect_step("touch-dst", Effect(codes.TOUCH, TOUCHED_DST)))
            nat.append(Step("reroute-dst", {"reroute-dst": self.rerouted(TOUCHED_DST)}))
        behind = rules(
            "local-rules", ("filter", "OUTPUT"), ("security", "OUTPUT"), made_here=True, first_oif=changes
        )
        note_oif = any("oif" in tested(s) for s in behind) and not self.given_oif
        ways.steps["local"] = [
            Step("route-local", {"route-local": self.routing_local("local-rules", note_oif)}, to=("local-rules",)),
        ]
        ways.steps["local-rules"] = [
            *(whole(Hook.OUTPUT, "defrag-out") if self.conntrack else ()),
            *rules("local-rules", ("raw", "OUTPUT"), made_here=True),
            *mangle, *nat, *behind,
            Step("leave", {"leave": self.routing_local("output")}, to=("output",)),
        ]
        lo = self.context("OUTPUT", made_here=True).oif(Values.single(self.interfaces.id("lo")))
        loop = Block(
            (Op(lo, effects=(Effect(codes.FORGET),)), Op(lo, Act.END, end=End(stage="loop"))), Hook.POSTROUTING
        )
        ways.steps["output"] = [
            *rules("output", ("mangle", "POSTROUTING"), ("nat", "POSTROUTING"), made_here=True),
            Step("loop", {"loop": loop}, to=("loop",)),
        ]
        ways.ends["output"] = End(Verdict.LOCAL_OUT, Hook.POSTROUTING)
        looped = rules("loop", ("raw", "PREROUTING"), ("mangle", "PREROUTING"), looped=True)
        looped += reassembly
        looped += rules("loop", ("mangle", "INPUT"), ("filter", "INPUT"), ("security", "INPUT"), looped=True)
        if any("ctstatus" in tested(s) for s in looped):
            looped.insert(0, _effect_step("confirm", Effect(codes.CONFIRM)))
        ways.steps["loop"] = looped
        ways.ends["loop"] = End(Verdict.LOCAL_IN, Hook.INPUT)
        return ways


TRACKING_MATCHES = frozenset({
    "conntrack", "state", "connmark", "connbytes", "connlimit", "connlabel", "helper", "socket", "cluster",
})
TRACKING_TARGETS = frozenset({
    "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "CONNMARK", "CONNSECMARK", "TPROXY", "SYNPROXY", "CLUSTERIP",
})
"""Matches and targets that make the kernel track connections; a nat table alone does not."""


def conntrack_in_use(host: Host) -> bool:
    """True where the rules make the kernel track connections (and so put fragments together)."""
    rules = (rule for table in host.ruleset.tables for chain in table.chains for rule in chain.rules)
    for rule in rules:
        target = rule.target
        if any(m.module in TRACKING_MATCHES for m in rule.matches):
            return True
        if target is not None and (
            target.name in TRACKING_TARGETS or (target.name == "CT" and target.get("notrack") is None)
        ):
            return True
    return False

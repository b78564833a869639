"""The option table of the matches of iptables and ip6tables 1.8.9: names, values and printed order of every option.

Sources: the help texts of iptables 1.8.9 for what exists, and its iptables-save for what is printed and in what order.
Hooks are those that the Linux 6 kernel checks when a rule is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fastpath.ruleset import kinds, names
from fastpath.ruleset.addresses import ValueFault
from fastpath.ruleset.kinds import (
    address_range,
    choice,
    icmp_type,
    interface,
    mac,
    masked,
    name_set,
    network,
    number,
    number_range,
    one_port,
    port_list,
    port_range,
    text,
)
from fastpath.ruleset.model import Masked, Option, PortRange
from fastpath.ruleset.options import Extension
from fastpath.ruleset.options import OptionSpec as Opt

V4, V6 = frozenset((4,)), frozenset((6,))
ARRIVING = frozenset(("PREROUTING", "INPUT", "FORWARD"))
LEAVING = frozenset(("FORWARD", "OUTPUT", "POSTROUTING"))
PORT_PROTOCOLS = frozenset((6, 17, 33, 132, 136))


def _flag(name: str, *, negatable: bool = False, hooks: frozenset[str] | None = None) -> Opt:
    return Opt(name, negatable=negatable, words=0, hooks=hooks)


def _without(options: list[Option], *defaults: Option) -> list[Option]:
    return [o for o in options if o not in defaults]


def _default(options: list[Option], name: str, value: kinds.Parsed) -> list[Option]:
    if any(o.name == name for o in options):
        return options
    return [*options, Option(name, value[0], False, value[1])]


_ALL_PORTS = tuple(Option(name, PortRange(0, 65535), False, ("0:65535",)) for name in ("sport", "dport"))


def _finish_tcp(options: list[Option], family: int) -> list[Option]:
    kept = _without(options, *_ALL_PORTS)
    return [o for o in kept if o.negated or o.name != "tcp-flags" or o.value != Masked(0, 0)]


def _finish_ports(options: list[Option], family: int) -> list[Option]:
    return _without(options, *_ALL_PORTS)


def _finish_spi(options: list[Option], family: int) -> list[Option]:
    return [o for o in options if o.negated or o.value != PortRange(0, kinds.U32)]


def _finish_ipcomp(options: list[Option], family: int) -> list[Option]:
    """Without an SPI iptables tests for SPI 0. (Its save prints nothing for the full range, which would then say 0.)"""
    return _default(options, "ipcompspi", (PortRange(0, 0), ("0",)))


def _finish_set(options: list[Option], family: int) -> list[Option]:
    """Counters are updated unless told otherwise, which is all that is printed."""
    return [o for o in options if o.negated or o.name not in ("update-counters", "update-subcounters")]


def _finish_limit(options: list[Option], family: int) -> list[Option]:
    options = _default(options, "limit", kinds.rate(10_000)(("3/hour",), family))
    return _without(options, *(Option("limit-burst", n, False, (str(n),)) for n in (0, 5)))


_HASH_TICKS = {"sec": "1000", "min": "60000", "hour": "3600000", "day": "86400000"}


def _hash_burst(limit: str, burst: Option | None) -> Option | None:
    """The burst as it is printed: packets always, bytes where given and then as a multiple of the rate."""
    if not limit.endswith("b/s"):
        word = burst.text[0] if burst else "5"
        packets = kinds.parse_number(word, 1, 1_000_000)
        return Option("hashlimit-burst", str(packets), False, (str(packets),))
    if burst is None:
        return None
    per_second, wanted = kinds.byte_count(limit[:-2]), kinds.byte_count(burst.text[0])
    if wanted < per_second:
        raise ValueFault(f"the burst {burst.text[0]} is smaller than the rate: at least {per_second}b")
    kept = -(-wanted // per_second) * per_second
    scale, unit = next((n, u) for n, u in ((1 << 20, "mb"), (1 << 10, "kb"), (1, "b")) if kept >= n)
    shown = f"{kept // scale}{unit}"
    return Option("hashlimit-burst", shown, False, (shown,))


def _finish_hashlimit(options: list[Option], family: int) -> list[Option]:
    """Negated limits are printed as their opposite; the burst is always printed, defaults of the table are not."""
    turned = {"hashlimit-upto": "hashlimit-above", "hashlimit-above": "hashlimit-upto"}
    options = [replace(o, name=turned[o.name], negated=False) if o.negated else o for o in options]
    limit = next(o.text[0] for o in options if o.name in turned)
    burst = _hash_burst(limit, next((o for o in options if o.name == "hashlimit-burst"), None))
    width = "128" if family == 6 else "32"
    defaults = {
        "hashlimit-htable-size": "0",
        "hashlimit-htable-max": "0",
        "hashlimit-htable-gcinterval": "1000",
        "hashlimit-htable-expire": _HASH_TICKS.get(limit.partition("/")[2], ""),
        "hashlimit-srcmask": width,
        "hashlimit-dstmask": width,
    }
    kept = [o for o in options if o.name != "hashlimit-burst" and (not o.text or defaults.get(o.name) != o.text[0])]
    return kept if burst is None else [*kept, burst]


def _finish_connlimit(options: list[Option], family: int) -> list[Option]:
    turned = {"connlimit-upto": "connlimit-above", "connlimit-above": "connlimit-upto"}
    options = [replace(o, name=turned[o.name], negated=False) if o.negated else o for o in options]
    options = _default(options, "connlimit-mask", (32, ("32",)) if family == 4 else (128, ("128",)))
    if not any(o.name == "connlimit-daddr" for o in options):
        options = _default(options, "connlimit-saddr", (None, ()))
    return options


def _finish_recent(options: list[Option], family: int) -> list[Option]:
    options = _default(options, "name", ("DEFAULT", ("DEFAULT",)))
    everything = "255.255.255.255" if family == 4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    options = _default(options, "mask", (everything, (everything,)))
    if not any(o.name == "rdest" for o in options):
        options = _default(options, "rsource", (None, ()))
    return options


def _finish_statistic(options: list[Option], family: int) -> list[Option]:
    given = {o.name for o in options}
    mode = next(o.value for o in options if o.name == "mode")
    if mode == "random" and "probability" not in given:
        raise ValueFault("--mode random needs --probability")
    if mode == "nth" and "every" not in given:
        raise ValueFault("--mode nth needs --every")
    if given & ({"every", "packet"} if mode == "random" else {"probability"}):
        raise ValueFault(f"--mode {mode} does not go with the other mode's options")
    if mode == "random":
        return options
    options = _default(options, "packet", (0, ("0",)))
    every, packet = (next(o.value for o in options if o.name == name) for name in ("every", "packet"))
    if isinstance(every, int) and isinstance(packet, int) and packet >= every:
        raise ValueFault(f"--packet {packet} never comes: it counts from 0 to {every - 1}")
    return options


def _finish_time(options: list[Option], family: int) -> list[Option]:
    """Negated days become the other days; the end of time is printed, the whole day is not."""
    for o in options:
        if o.negated and isinstance(o.value, frozenset) and len(o.value) == (7 if o.name == "weekdays" else 31):
            raise ValueFault(f"'! --{o.name}' of all days matches never: name fewer days")
    last_day = "2038-01-19T03:14:07"
    result = []
    for o in options:
        if o.negated and o.name == "weekdays":
            assert isinstance(o.value, frozenset)
            rest = [d for d in kinds.WEEKDAYS if d not in o.value]
            o = Option(o.name, frozenset(rest), False, (",".join(rest),))
        elif o.negated:
            assert isinstance(o.value, frozenset)
            rest = [str(d) for d in range(1, 32) if str(d) not in o.value]
            o = Option(o.name, frozenset(rest), False, (",".join(rest),))
        if (o.name, o.text) not in (
            ("utc", ()),
            ("datestart", ("1970-01-01T00:00:00",)),
            ("timestart", ("00:00:00",)),
            ("timestop", ("23:59:59",)),
            ("weekdays", (",".join(kinds.WEEKDAYS),)),
        ):
            result.append(o)
    return _default(result, "datestop", (last_day, (last_day,)))


def _finish_string(options: list[Option], family: int) -> list[Option]:
    """Printable characters are printed as text, anything else as hexadecimal; default bounds are not printed."""
    result = []
    for o in options:
        if o.name in ("string", "hex-string"):
            word = o.text[0]
            content = (
                bytes.fromhex(word.strip("|")) if o.name == "hex-string" else word.encode("utf-8", "surrogatepass")
            )
            if all(0x20 <= byte < 0x7F for byte in content):
                shown = content.decode("ascii")
                o = Option("string", shown, o.negated, (shown,))
            else:
                shown = f"|{content.hex()}|"
                o = Option("hex-string", shown, o.negated, (shown,))
        result.append(o)
    return _without(result, Option("from", 0, False, ("0",)), Option("to", 65535, False, ("65535",)))


def _finish_cluster(options: list[Option], family: int) -> list[Option]:
    result = []
    for o in options:
        if o.name == "cluster-local-node":
            assert isinstance(o.value, int)
            bit = 1 << (o.value - 1)
            o = Option("cluster-local-nodemask", bit, o.negated, (f"0x{bit:08x}",))
        result.append(o)
    return result


def _finish_policy(options: list[Option], family: int) -> list[Option]:
    """The options of each policy element in printed order; elements stay apart by ``--next``."""
    options = _default(options, "pol", ("ipsec", ("ipsec",)))
    given = {o.name: o for o in options}
    if "strict" in given and given["pol"].value == "none":
        raise ValueFault("--pol none has no elements, so --strict says nothing")
    if "next" in given and "strict" not in given:
        raise ValueFault("--next needs --strict")
    order = ("dir", "pol", "strict", "reqid", "spi", "proto", "mode", "tunnel-dst", "tunnel-src")
    elements: list[list[Option]] = [[]]
    heads = [o for o in options if o.name in order[:3]]
    for o in options:
        if o.name == "next":
            elements.append([])
        elif o.name not in order[:3]:
            elements[-1].append(o)
    result = sorted(heads, key=lambda o: order.index(o.name))
    for n, element in enumerate(elements):
        result += [Option("next")] if n else []
        result += sorted(element, key=lambda o: order.index(o.name))
    return result


def _policy_hooks(options: Iterable[Option]) -> frozenset[str] | None:
    return LEAVING if any(o.value == "out" for o in options) else ARRIVING


def _physdev_hooks(options: Iterable[Option]) -> frozenset[str] | None:
    """A bridge's outgoing port is not known yet in OUTPUT, unless the packet is bridged."""
    given = {o.name: o for o in options}
    bridged = given.get("physdev-is-bridged")
    if given.keys() & {"physdev-out", "physdev-is-out"} and (bridged is None or bridged.negated):
        return frozenset(("PREROUTING", "INPUT", "FORWARD", "POSTROUTING"))
    return None


def _ecn_protocols(options: Iterable[Option]) -> frozenset[int] | None:
    return frozenset((6,)) if any(o.name.startswith("ecn-tcp") for o in options) else None


def _ports(*more: Opt) -> tuple[Opt, ...]:
    return (
        Opt("sport", port_range, ("source-port",), negatable=True),
        Opt("dport", port_range, ("destination-port",), negatable=True),
        *more,
    )


_SPI = number_range(kinds.U32)

MATCHES: tuple[Extension, ...] = (
    Extension(
        "addrtype",
        (
            Opt("src-type", name_set(names.ADDRESS_TYPES, "address type"), negatable=True),
            Opt("dst-type", name_set(names.ADDRESS_TYPES, "address type"), negatable=True),
            _flag("limit-iface-in", hooks=ARRIVING),
            _flag("limit-iface-out", hooks=LEAVING),
        ),
        required=(("src-type", "dst-type"),),
        exclusive=(("limit-iface-in", "limit-iface-out"),),
    ),
    Extension("ah", (Opt("ahspi", _SPI, negatable=True),), V4, frozenset((51,)), finish=_finish_spi),
    Extension(
        "ah",
        (Opt("ahspi", _SPI, negatable=True), Opt("ahlen", number(), negatable=True), _flag("ahres")),
        V6,
        finish=_finish_spi,
    ),
    Extension(
        "bpf",
        (Opt("bytecode", text, quoting="always"), Opt("object-pinned", text)),
        required=(("bytecode", "object-pinned"),),
        exclusive=(("bytecode", "object-pinned"),),
        since="1.4.18",
    ),
    Extension(
        "cgroup",
        (Opt("path", text, negatable=True, quoting="always"), Opt("cgroup", number(), negatable=True)),
        required=(("path", "cgroup"),),
        exclusive=(("path", "cgroup"),),
        hooks=frozenset(("INPUT", "OUTPUT", "POSTROUTING")),
        since="1.4.21",
    ),
    Extension(
        "cluster",
        (
            Opt("cluster-local-node", number(1, 32), negatable=True),
            Opt("cluster-local-nodemask", number(1, form="08x"), negatable=True),
            Opt("cluster-total-nodes", number(1, 32)),
            Opt("cluster-hash-seed", number(form="08x")),
        ),
        required=(
            ("cluster-local-node", "cluster-local-nodemask"),
            ("cluster-total-nodes",),
            ("cluster-hash-seed",),
        ),
        exclusive=(("cluster-local-node", "cluster-local-nodemask"),),
        finish=_finish_cluster,
    ),
    Extension("comment", (Opt("comment", kinds.cut_text(255), quoting="auto"),), required=(("comment",),)),
    Extension(
        "connbytes",
        (
            Opt("connbytes", kinds.byte_count_range, negatable=True),
            Opt("connbytes-mode", choice(("packets", "bytes", "avgpkt"))),
            Opt("connbytes-dir", choice(("original", "reply", "both"))),
        ),
        required=(("connbytes",), ("connbytes-mode",), ("connbytes-dir",)),
    ),
    Extension(
        "connlabel",
        (Opt("label", text, negatable=True, quoting="always"), _flag("set")),
        required=(("label",),),
        since="1.4.18",
    ),
    Extension(
        "connlimit",
        (
            Opt("connlimit-upto", number(), negatable=True),
            Opt("connlimit-above", number(), negatable=True),
            Opt("connlimit-mask", number(0, 128)),
            _flag("connlimit-saddr"),
            _flag("connlimit-daddr"),
        ),
        required=(("connlimit-upto", "connlimit-above"),),
        exclusive=(("connlimit-upto", "connlimit-above"), ("connlimit-saddr", "connlimit-daddr")),
        finish=_finish_connlimit,
    ),
    Extension("connmark", (Opt("mark", masked(), negatable=True),), required=(("mark",),)),
    Extension(
        "conntrack",
        (
            Opt("ctstate", name_set(names.CT_STATES, "connection state"), negatable=True),
            Opt("ctproto", kinds.protocol_number, negatable=True),
            Opt("ctorigsrc", network, negatable=True),
            Opt("ctorigdst", network, negatable=True),
            Opt("ctreplsrc", network, negatable=True),
            Opt("ctrepldst", network, negatable=True),
            Opt("ctorigsrcport", kinds.any_port_range, negatable=True),
            Opt("ctorigdstport", kinds.any_port_range, negatable=True),
            Opt("ctreplsrcport", kinds.any_port_range, negatable=True),
            Opt("ctrepldstport", kinds.any_port_range, negatable=True),
            Opt("ctstatus", kinds.ct_status, negatable=True),
            Opt("ctexpire", number_range(kinds.U32, ordered=False), negatable=True),
            Opt("ctdir", choice(("ORIGINAL", "REPLY"))),
        ),
        required=(
            (
                "ctstate",
                "ctproto",
                "ctorigsrc",
                "ctorigdst",
                "ctreplsrc",
                "ctrepldst",
                "ctorigsrcport",
                "ctorigdstport",
                "ctreplsrcport",
                "ctrepldstport",
                "ctstatus",
                "ctexpire",
                "ctdir",
            ),
        ),
    ),
    Extension("cpu", (Opt("cpu", number(), negatable=True),), required=(("cpu",),)),
    Extension(
        "dccp",
        _ports(Opt("dccp-types", kinds.dccp_types, negatable=True), Opt("dccp-option", number(1, 255), negatable=True)),
        protocols=frozenset((33,)),
    ),
    Extension(
        "devgroup",
        (
            Opt("src-group", masked(), negatable=True, hooks=ARRIVING),
            Opt("dst-group", masked(), negatable=True, hooks=LEAVING),
        ),
        required=(("src-group", "dst-group"),),
    ),
    Extension(
        "dscp",
        (
            Opt("dscp", number(0, 63, "02x"), negatable=True),
            Opt("dscp-class", kinds.dscp_class, negatable=True, canonical="dscp"),
        ),
        required=(("dscp",),),
    ),
    Extension(
        "dst",
        (Opt("dst-len", number(0, 2047), negatable=True), Opt("dst-opts", text)),
        V6,
    ),
    Extension(
        "ecn",
        (
            _flag("ecn-tcp-ece", negatable=True),
            _flag("ecn-tcp-cwr", negatable=True),
            Opt("ecn-ip-ect", number(0, 3), negatable=True),
        ),
        required=(("ecn-tcp-ece", "ecn-tcp-cwr", "ecn-ip-ect"),),
        protocols_by=_ecn_protocols,
    ),
    Extension("esp", (Opt("espspi", _SPI, negatable=True),), protocols=frozenset((50,)), finish=_finish_spi),
    Extension("eui64", (), V6, hooks=ARRIVING),
    Extension(
        "frag",
        (
            Opt("fragid", _SPI, negatable=True),
            Opt("fraglen", number(), negatable=True),
            _flag("fragres"),
            _flag("fragfirst"),
            _flag("fragmore"),
            _flag("fraglast"),
        ),
        V6,
        exclusive=(("fragmore", "fraglast"),),
        finish=_finish_spi,
    ),
    Extension(
        "hashlimit",
        (
            Opt("hashlimit-upto", kinds.hash_rate, ("hashlimit",), negatable=True),
            Opt("hashlimit-above", kinds.hash_rate, negatable=True),
            Opt("hashlimit-burst", kinds.hash_burst),
            Opt("hashlimit-mode", name_set(("srcip", "srcport", "dstip", "dstport"), "hashlimit mode")),
            Opt("hashlimit-name", kinds.limited_text(63)),
            Opt("hashlimit-htable-size", number()),
            Opt("hashlimit-htable-max", number()),
            Opt("hashlimit-htable-gcinterval", number()),
            Opt("hashlimit-htable-expire", number()),
            Opt("hashlimit-srcmask", number(0, 128)),
            Opt("hashlimit-dstmask", number(0, 128)),
            _flag("hashlimit-rate-match"),
            Opt("hashlimit-rate-interval", number(1)),
        ),
        required=(("hashlimit-upto", "hashlimit-above"), ("hashlimit-name",)),
        exclusive=(("hashlimit-upto", "hashlimit-above"),),
        requires=(("hashlimit-rate-interval", "hashlimit-rate-match"),),
        finish=_finish_hashlimit,
    ),
    Extension(
        "hbh",
        (Opt("hbh-len", number(0, 2047), negatable=True), Opt("hbh-opts", text)),
        V6,
    ),
    Extension(
        "helper",
        (Opt("helper", kinds.cut_text(29), negatable=True, quoting="auto"),),
        required=(("helper",),),
    ),
    Extension(
        "hl",
        (
            Opt("hl-eq", number(0, 255), ("hl",), negatable=True),
            Opt("hl-lt", number(0, 255)),
            Opt("hl-gt", number(0, 255)),
        ),
        V6,
        required=(("hl-eq", "hl-lt", "hl-gt"),),
        exclusive=(("hl-eq", "hl-lt", "hl-gt"),),
    ),
    Extension(
        "icmp",
        (Opt("icmp-type", icmp_type(names.ICMP_TYPES), negatable=True),),
        V4,
        frozenset((1,)),
        required=(("icmp-type",),),
    ),
    Extension(
        "icmp6",
        (Opt("icmpv6-type", icmp_type(names.ICMPV6_TYPES), negatable=True),),
        V6,
        frozenset((58,)),
        required=(("icmpv6-type",),),
    ),
    Extension(
        "ipcomp",
        (Opt("ipcompspi", _SPI, negatable=True), _flag("compres")),
        protocols=frozenset((108,)),
        finish=_finish_ipcomp,
        since="1.4.19",
    ),
    Extension(
        "iprange",
        (Opt("src-range", address_range, negatable=True), Opt("dst-range", address_range, negatable=True)),
        required=(("src-range", "dst-range"),),
    ),
    Extension(
        "ipv6header",
        (Opt("header", kinds.ipv6_headers, negatable=True), _flag("soft")),
        V6,
        required=(("header",),),
    ),
    Extension(
        "ipvs",
        (
            _flag("ipvs", negatable=True),
            Opt("vproto", kinds.protocol_number, negatable=True),
            Opt("vaddr", network, negatable=True),
            Opt("vport", one_port, negatable=True),
            Opt("vdir", choice(("ORIGINAL", "REPLY"))),
            Opt("vmethod", choice(("GATE", "IPIP", "MASQ")), negatable=True),
            Opt("vportctl", one_port, negatable=True),
        ),
        required=(("ipvs", "vproto", "vaddr", "vport", "vdir", "vmethod", "vportctl"),),
    ),
    Extension("length", (Opt("length", number_range(65535, ordered=False), negatable=True),), required=(("length",),)),
    Extension(
        "limit",
        (Opt("limit", kinds.rate(10_000)), Opt("limit-burst", number(0, 10_000))),
        finish=_finish_limit,
    ),
    Extension("mac", (Opt("mac-source", mac, negatable=True),), required=(("mac-source",),), hooks=ARRIVING),
    Extension("mark", (Opt("mark", masked(), negatable=True),), required=(("mark",),)),
    Extension("mh", (Opt("mh-type", kinds.mobility_type, negatable=True),), V6, frozenset((135,))),
    Extension(
        "multiport",
        (
            Opt("sports", port_list, ("source-ports",), negatable=True),
            Opt("dports", port_list, ("destination-ports",), negatable=True),
            Opt("ports", port_list, negatable=True),
        ),
        protocols=PORT_PROTOCOLS,
        required=(("sports", "dports", "ports"),),
        exclusive=(("sports", "dports", "ports"),),
    ),
    Extension("nfacct", (Opt("nfacct-name", kinds.limited_text(31)),), required=(("nfacct-name",),), since="1.4.13"),
    Extension(
        "osf",
        (
            Opt("genre", kinds.limited_text(31), negatable=True),
            Opt("ttl", number(0, 2)),
            Opt("log", number(0, 2)),
        ),
        protocols=frozenset((6,)),
        required=(("genre",),),
        hooks=ARRIVING,
    ),
    Extension(
        "owner",
        (
            _flag("socket-exists", negatable=True),
            Opt("uid-owner", kinds.owner_range, negatable=True),
            Opt("gid-owner", kinds.owner_range, negatable=True),
            _flag("suppl-groups"),
        ),
        required=(("socket-exists", "uid-owner", "gid-owner"),),
        hooks=frozenset(("OUTPUT", "POSTROUTING")),
    ),
    Extension(
        "physdev",
        (
            _flag("physdev-is-in", negatable=True),
            Opt("physdev-in", interface, negatable=True),
            _flag("physdev-is-out", negatable=True),
            Opt("physdev-out", interface, negatable=True),
            _flag("physdev-is-bridged", negatable=True),
        ),
        required=(("physdev-is-in", "physdev-in", "physdev-is-out", "physdev-out", "physdev-is-bridged"),),
        hooks_by=_physdev_hooks,
    ),
    Extension(
        "pkttype",
        (
            Opt(
                "pkt-type",
                choice(
                    ("unicast", "broadcast", "multicast", "otherhost"),
                    {"host": "unicast", "bcast": "broadcast", "mcast": "multicast"},
                ),
                negatable=True,
            ),
        ),
        required=(("pkt-type",),),
    ),
    Extension(
        "policy",
        (
            Opt("dir", choice(("in", "out"))),
            Opt("pol", choice(("none", "ipsec"))),
            _flag("strict"),
            Opt("reqid", number(), negatable=True),
            Opt("spi", number(form="x"), negatable=True),
            Opt("proto", kinds.protocol_name, negatable=True),
            Opt("mode", choice(("transport", "tunnel")), negatable=True),
            Opt("tunnel-dst", network, negatable=True),
            Opt("tunnel-src", network, negatable=True),
            _flag("next"),
        ),
        required=(("dir",),),
        ordered=False,
        finish=_finish_policy,
        hooks_by=_policy_hooks,
    ),
    Extension("quota", (Opt("quota", number(0, (1 << 64) - 1), negatable=True),), required=(("quota",),)),
    Extension(
        "rateest",
        (
            _flag("rateest-delta"),
            Opt("rateest1", kinds.limited_text(15), ("rateest",)),
            Opt("rateest-bps1", text, ("rateest-bps",), optional=True),
            Opt("rateest-pps1", text, ("rateest-pps",), optional=True),
            _flag("rateest-lt", negatable=True),
            _flag("rateest-gt", negatable=True),
            _flag("rateest-eq", negatable=True),
            Opt("rateest2", kinds.limited_text(15)),
            Opt("rateest-bps2", text, optional=True),
            Opt("rateest-pps2", text, optional=True),
        ),
        required=(("rateest1",),),
        exclusive=(("rateest-lt", "rateest-gt", "rateest-eq"),),
        ordered=False,
    ),
    Extension(
        "realm",
        (Opt("realm", masked(), negatable=True),),
        V4,
        required=(("realm",),),
        hooks=frozenset(("INPUT", "FORWARD", "OUTPUT", "POSTROUTING")),
    ),
    Extension(
        "recent",
        (
            _flag("set", negatable=True),
            _flag("rcheck", negatable=True),
            _flag("update", negatable=True),
            _flag("remove", negatable=True),
            Opt("seconds", number(1)),
            _flag("reap"),
            Opt("hitcount", number(1)),
            _flag("rttl"),
            Opt("name", kinds.limited_text(199)),
            Opt("mask", kinds.address),
            _flag("rsource"),
            _flag("rdest"),
        ),
        required=(("set", "rcheck", "update", "remove"),),
        exclusive=(
            ("set", "rcheck", "update", "remove"),
            ("rsource", "rdest"),
            ("set", "seconds"),
            ("set", "hitcount"),
            ("set", "rttl"),
            ("remove", "seconds"),
            ("remove", "hitcount"),
            ("remove", "rttl"),
        ),
        requires=(("reap", "seconds"),),
        finish=_finish_recent,
    ),
    Extension(
        "rpfilter",
        (_flag("loose"), _flag("validmark"), _flag("accept-local"), _flag("invert")),
        tables=frozenset(("raw", "mangle")),
        hooks=frozenset(("PREROUTING",)),
        since="1.4.13",
    ),
    Extension(
        "rt",
        (
            Opt("rt-type", number(), negatable=True),
            Opt("rt-segsleft", number_range(kinds.U32), negatable=True),
            Opt("rt-len", number(), negatable=True),
            _flag("rt-0-res"),
            Opt("rt-0-addrs", text),
            _flag("rt-0-not-strict"),
        ),
        V6,
    ),
    Extension(
        "sctp",
        _ports(Opt("chunk-types", kinds.chunk_types, negatable=True, words=2)),
        protocols=frozenset((132,)),
    ),
    Extension(
        "set",
        (
            Opt("match-set", kinds.set_reference, ("set",), negatable=True, words=2),
            _flag("return-nomatch"),
            _flag("update-counters", negatable=True),
            _flag("update-subcounters", negatable=True),
            Opt("packets-eq", number(0, (1 << 64) - 1), negatable=True),
            Opt("packets-lt", number(0, (1 << 64) - 1)),
            Opt("packets-gt", number(0, (1 << 64) - 1)),
            Opt("bytes-eq", number(0, (1 << 64) - 1), negatable=True),
            Opt("bytes-lt", number(0, (1 << 64) - 1)),
            Opt("bytes-gt", number(0, (1 << 64) - 1)),
        ),
        required=(("match-set",),),
        finish=_finish_set,
        exclusive=(("packets-eq", "packets-lt", "packets-gt"), ("bytes-eq", "bytes-lt", "bytes-gt")),
    ),
    Extension(
        "socket",
        (_flag("transparent"), _flag("nowildcard"), _flag("restore-skmark")),
        hooks=frozenset(("PREROUTING", "INPUT")),
    ),
    Extension(
        "srh",
        (
            Opt("srh-next-hdr", number(0, 255), negatable=True),
            *(
                Opt(f"srh-{what}-{test}", number(0, 255), negatable=True)
                for what in ("hdr-len", "segs-left", "last-entry")
                for test in ("eq", "gt", "lt")
            ),
            Opt("srh-tag", number(0, 65535), negatable=True),
            Opt("srh-psid", kinds.network_with_mask, negatable=True),
            Opt("srh-nsid", kinds.network_with_mask, negatable=True),
            Opt("srh-lsid", kinds.network_with_mask, negatable=True),
        ),
        V6,
        since="1.8.0",
    ),
    Extension(
        "state",
        (Opt("state", name_set(names.CT_STATES[:5], "connection state"), negatable=True),),
        required=(("state",),),
    ),
    Extension(
        "statistic",
        (
            Opt("mode", choice(("random", "nth"))),
            Opt("probability", kinds.probability, negatable=True),
            Opt("every", number(1), negatable=True),
            Opt("packet", number()),
        ),
        required=(("mode",),),
        finish=_finish_statistic,
    ),
    Extension(
        "string",
        (
            Opt("string", kinds.limited_text(128, empty=False), negatable=True, quoting="always"),
            Opt("hex-string", kinds.hex_string, negatable=True, quoting="always"),
            Opt("algo", kinds.limited_text(15)),
            Opt("from", number(0, 65535)),
            Opt("to", number(0, 65535)),
            _flag("icase"),
        ),
        required=(("string", "hex-string"), ("algo",)),
        exclusive=(("string", "hex-string"),),
        finish=_finish_string,
    ),
    Extension(
        "tcp",
        _ports(
            Opt("tcp-option", number(1, 255), negatable=True),
            Opt("tcp-flags", kinds.tcp_flags, negatable=True, words=2),
            Opt("syn", kinds.syn, negatable=True, words=0, canonical="tcp-flags"),
        ),
        protocols=frozenset((6,)),
        finish=_finish_tcp,
    ),
    Extension(
        "tcpmss", (Opt("mss", number_range(65535), negatable=True),), protocols=frozenset((6,)), required=(("mss",),)
    ),
    Extension(
        "time",
        (
            Opt("timestart", kinds.daytime),
            Opt("timestop", kinds.daytime),
            Opt("monthdays", kinds.monthdays, negatable=True),
            Opt("weekdays", kinds.weekdays, negatable=True),
            Opt("datestart", kinds.date),
            Opt("datestop", kinds.date),
            _flag("kerneltz"),
            _flag("contiguous"),
            _flag("utc"),
        ),
        exclusive=(("kerneltz", "utc"),),
        finish=_finish_time,
    ),
    Extension("tos", (Opt("tos", kinds.tos, negatable=True),), required=(("tos",),)),
    Extension(
        "ttl",
        (
            Opt("ttl-eq", number(0, 255), ("ttl",), negatable=True),
            Opt("ttl-lt", number(0, 255)),
            Opt("ttl-gt", number(0, 255)),
        ),
        V4,
        required=(("ttl-eq", "ttl-lt", "ttl-gt"),),
        exclusive=(("ttl-eq", "ttl-lt", "ttl-gt"),),
    ),
    Extension("u32", (Opt("u32", kinds.u32_tests, negatable=True, quoting="always"),), required=(("u32",),)),
    Extension("udp", _ports(), protocols=frozenset((17,)), finish=_finish_ports),
)

"""The option table of the targets of iptables and ip6tables 1.8.9: names, values and printed order of every option.

Sources: the help texts of iptables 1.8.9 for what exists, and its iptables-save for what is printed and in what order.
Tables and hooks are those that the Linux 6 kernel checks when a rule is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fastpath.ruleset import kinds
from fastpath.ruleset.addresses import ValueFault
from fastpath.ruleset.kinds import U32, bit_operation, choice, dashed_ports, interface, masked, name_set, number, text
from fastpath.ruleset.model import NatRange, Option, PortRange
from fastpath.ruleset.options import Extension
from fastpath.ruleset.options import OptionSpec as Opt

V4, V6 = frozenset((4,)), frozenset((6,))
RAW, MANGLE, NAT, FILTER = (frozenset((t,)) for t in ("raw", "mangle", "nat", "filter"))
SECURITY = frozenset(("mangle", "security"))
LEAVING = frozenset(("FORWARD", "OUTPUT", "POSTROUTING"))
REDIRECTING = frozenset(("PREROUTING", "OUTPUT"))
TCP = frozenset((6,))
CT_EVENTS = (
    "new",
    "related",
    "destroy",
    "reply",
    "assured",
    "protoinfo",
    "helper",
    "mark",
    "natseqinfo",
    "secmark",
)


def _flag(name: str, *, hooks: frozenset[str] | None = None) -> Opt:
    return Opt(name, words=0, hooks=hooks)


def _default(options: list[Option], name: str, value: kinds.Parsed) -> list[Option]:
    if any(o.name == name for o in options):
        return options
    return [*options, Option(name, value[0], False, value[1])]


def _without(options: list[Option], *defaults: tuple[str, str]) -> list[Option]:
    return [o for o in options if (o.name, *o.text) not in defaults]


def _set_mark(value: int, mask: int, given: bool) -> tuple[int, int]:
    return value, (mask | value if given else U32)


_XMARK = (
    Opt("set-xmark", masked(always=True)),
    Opt("set-mark", bit_operation(_set_mark, "x", U32, mask=True), canonical="set-xmark"),
    Opt("and-mark", bit_operation(lambda v, m, g: (0, ~v & U32), "x", U32, mask=False), canonical="set-xmark"),
    Opt("or-mark", bit_operation(lambda v, m, g: (v, v), "x", U32, mask=False), canonical="set-xmark"),
    Opt("xor-mark", bit_operation(lambda v, m, g: (v, 0), "x", U32, mask=False), canonical="set-xmark"),
)


def _finish_connmark(options: list[Option], family: int) -> list[Option]:
    """Saving and restoring print both masks; ``--mask`` is both at once."""
    given = {o.name: o for o in options}
    if not given.keys() & {"save-mark", "restore-mark"}:
        if given.keys() & {"nfmask", "ctmask", "mask"}:
            raise ValueFault("--mask, --nfmask and --ctmask need --save-mark or --restore-mark")
        return options
    if "mask" in given:
        both = given["mask"]
        rest = [o for o in options if o.name != "mask"]
        return [*rest, replace(both, name="nfmask"), replace(both, name="ctmask")]
    everything = (U32, ("0xffffffff",))
    return _default(_default(options, "nfmask", everything), "ctmask", everything)


def _finish_reject(options: list[Option], family: int) -> list[Option]:
    default = "icmp-port-unreachable" if family == 4 else "icmp6-port-unreachable"
    return _default(options, "reject-with", (default, (default,)))


def _finish_log(options: list[Option], family: int) -> list[Option]:
    return _without(options, ("log-level", "4"))


def _finish_nflog(options: list[Option], family: int) -> list[Option]:
    return _without(options, ("nflog-group", "0"), ("nflog-threshold", "0"), ("nflog-range", "0"))


def _finish_ulog(options: list[Option], family: int) -> list[Option]:
    return _default(_without(options, ("ulog-cprange", "0"), ("ulog-qthreshold", "1")), "ulog-nlgroup", (1, ("1",)))


def _finish_tproxy(options: list[Option], family: int) -> list[Option]:
    anywhere = "0.0.0.0" if family == 4 else "::"
    options = _default(options, "on-ip", (anywhere, (anywhere,)))
    return _default(options, "tproxy-mark", kinds.masked_result(0, 0))


def _finish_nfqueue(options: list[Option], family: int) -> list[Option]:
    balance = next((o.value for o in options if o.name == "queue-balance"), None)
    if isinstance(balance, PortRange):
        if balance.first == balance.last:
            raise ValueFault("--queue-balance needs at least two queues, as in 0:3")
        return options
    return _default(options, "queue-num", (0, ("0",)))


_HMARK_TUPLE = {
    "src": ("hmark-src-prefix", {4: "32", 6: "128"}),
    "dst": ("hmark-dst-prefix", {4: "32", 6: "128"}),
    "sport": ("hmark-sport-mask", {4: "0xffff", 6: "0xffff"}),
    "dport": ("hmark-dport-mask", {4: "0xffff", 6: "0xffff"}),
    "spi": ("hmark-spi-mask", {4: "0xffffffff", 6: "0xffffffff"}),
    "proto": ("hmark-proto-mask", {4: "0xffff", 6: "0xffff"}),
}


def _finish_hmark(options: list[Option], family: int) -> list[Option]:
    """``--hmark-tuple`` is printed as the masks it stands for, ``ct`` aside."""
    result: list[Option] = []
    for o in options:
        if o.name != "hmark-tuple":
            result.append(o)
            continue
        for part in o.text[0].split(","):
            if part == "ct":
                result.append(Option("hmark-tuple", "ct", False, ("ct",)))
            elif part in _HMARK_TUPLE:
                name, everything = _HMARK_TUPLE[part]
                word = everything[family]
                result.append(Option(name, kinds.parse_number(word), False, (word,)))
            else:
                raise ValueFault(f"'{part}' is no part of a tuple: ct, {', '.join(_HMARK_TUPLE)}")
    seen = [o.name for o in result]
    twice = next((n for n in seen if seen.count(n) > 1), None)
    if twice:
        raise ValueFault(f"--{twice} is given twice, --hmark-tuple included")
    return result


def _port_protocols(options: Iterable[Option]) -> frozenset[int] | None:
    """NAT to ports needs a protocol that has them; iptables lets ICMP pass, whose id is mapped like a port."""
    ports = any(o.name == "to-ports" or (isinstance(o.value, NatRange) and o.value.ports is not None) for o in options)
    return frozenset((1, 6, 17, 33, 58, 132)) if ports else None


def _ct_protocols(options: Iterable[Option]) -> frozenset[int] | None:
    return frozenset(range(1, 256)) if any(o.name in ("helper", "timeout") for o in options) else None


def _finish_set(options: list[Option], family: int) -> list[Option]:
    given = {o.name for o in options}
    if "map-set" in given and not given & {"map-mark", "map-prio", "map-queue"}:
        raise ValueFault("--map-set needs --map-mark, --map-prio or --map-queue")
    return options


def _reject_protocols(options: Iterable[Option]) -> frozenset[int] | None:
    return TCP if any(o.value == "tcp-reset" for o in options) else None


TARGETS: tuple[Extension, ...] = (
    Extension("AUDIT", (Opt("type", choice(("accept", "drop", "reject"))),), required=(("type",),), since="1.4.11"),
    Extension("CHECKSUM", (_flag("checksum-fill"),), tables=MANGLE, required=(("checksum-fill",),), since="1.4.10"),
    Extension("CLASSIFY", (Opt("set-class", kinds.class_id),), required=(("set-class",),), hooks=LEAVING),
    Extension(
        "CLUSTERIP",
        (
            _flag("new"),
            Opt("hashmode", choice(("sourceip", "sourceip-sourceport", "sourceip-sourceport-destport"))),
            Opt("clustermac", kinds.mac),
            Opt("total-nodes", number(1, 65535)),
            Opt("local-node", number(1, 65535)),
            Opt("hash-init", number()),
        ),
        V4,
        hooks=frozenset(("INPUT",)),
    ),
    Extension(
        "CONNMARK",
        (
            *_XMARK,
            _flag("save-mark"),
            _flag("restore-mark"),
            Opt("nfmask", number(form="x")),
            Opt("ctmask", number(form="x")),
            Opt("mask", number(form="x")),
            Opt("left-shift-mark", number(0, 31)),
            Opt("right-shift-mark", number(0, 31)),
        ),
        required=(("set-xmark", "save-mark", "restore-mark"),),
        exclusive=(
            ("set-xmark", "save-mark", "restore-mark"),
            ("mask", "nfmask"),
            ("mask", "ctmask"),
            ("left-shift-mark", "right-shift-mark"),
        ),
        finish=_finish_connmark,
    ),
    Extension(
        "CONNSECMARK",
        (_flag("save"), _flag("restore")),
        tables=SECURITY,
        required=(("save", "restore"),),
        exclusive=(("save", "restore"),),
    ),
    Extension(
        "CT",
        (
            _flag("notrack"),
            Opt("helper", kinds.limited_text(15)),
            Opt("timeout", kinds.limited_text(31)),
            Opt("ctevents", name_set(CT_EVENTS, "conntrack event")),
            Opt("expevents", name_set(("new",), "expectation event")),
            Opt("zone", kinds.zone),
            Opt("zone-orig", kinds.zone),
            Opt("zone-reply", kinds.zone),
        ),
        tables=RAW,
        protocols_by=_ct_protocols,
        exclusive=(("notrack", "helper"), ("notrack", "timeout"), ("zone", "zone-orig"), ("zone", "zone-reply")),
    ),
    Extension(
        "DNAT",
        (
            Opt("to-destination", kinds.nat_range(shifted=True)),
            _flag("random"),
            _flag("persistent"),
        ),
        tables=NAT,
        hooks=REDIRECTING,
        required=(("to-destination",),),
        protocols_by=_port_protocols,
    ),
    Extension(
        "DNPT",
        (Opt("src-pfx", kinds.network_with_mask), Opt("dst-pfx", kinds.network_with_mask)),
        V6,
        tables=MANGLE,
        hooks=REDIRECTING,
        required=(("src-pfx",), ("dst-pfx",)),
    ),
    Extension(
        "DSCP",
        (
            Opt("set-dscp", number(0, 63, "02x")),
            Opt("set-dscp-class", kinds.dscp_class, canonical="set-dscp"),
        ),
        tables=MANGLE,
        required=(("set-dscp",),),
    ),
    Extension("ECN", (_flag("ecn-tcp-remove"),), V4, TCP, MANGLE, required=(("ecn-tcp-remove",),)),
    Extension(
        "HL",
        (Opt("hl-set", number(0, 255)), Opt("hl-dec", number(1, 255)), Opt("hl-inc", number(1, 255))),
        V6,
        tables=MANGLE,
        required=(("hl-set", "hl-dec", "hl-inc"),),
        exclusive=(("hl-set", "hl-dec", "hl-inc"),),
    ),
    Extension(
        "HMARK",
        (
            Opt("hmark-src-prefix", number(0, 128)),
            Opt("hmark-dst-prefix", number(0, 128)),
            Opt("hmark-sport-mask", number(0, 65535, "04x")),
            Opt("hmark-dport-mask", number(0, 65535, "04x")),
            Opt("hmark-spi-mask", number(form="08x")),
            Opt("hmark-sport", number(0, 65535, "04x")),
            Opt("hmark-dport", number(0, 65535, "04x")),
            Opt("hmark-spi", number(form="08x")),
            Opt("hmark-proto-mask", number(0, 65535, "02x")),
            Opt("hmark-rnd", number(form="08x")),
            Opt("hmark-mod", number(1)),
            Opt("hmark-offset", number()),
            Opt("hmark-tuple", text),
        ),
        required=(("hmark-mod",),),
        finish=_finish_hmark,
        since="1.4.15",
    ),
    Extension(
        "IDLETIMER",
        (Opt("timeout", number(1)), Opt("label", kinds.limited_text(27)), _flag("alarm")),
        required=(("timeout",), ("label",)),
    ),
    Extension(
        "LED",
        (
            Opt("led-trigger-id", kinds.limited_text(26), quoting="always"),
            Opt("led-delay", text),
            _flag("led-always-blink"),
        ),
        required=(("led-trigger-id",),),
    ),
    Extension(
        "LOG",
        (
            Opt("log-prefix", kinds.cut_text(29, empty=False), quoting="auto"),
            Opt("log-level", kinds.log_level),
            _flag("log-tcp-sequence"),
            _flag("log-tcp-options"),
            _flag("log-ip-options"),
            _flag("log-uid"),
            _flag("log-macdecode"),
        ),
        finish=_finish_log,
    ),
    Extension("MARK", _XMARK, required=(("set-xmark",),)),
    Extension(
        "MASQUERADE",
        (Opt("to-ports", dashed_ports), _flag("random"), _flag("random-fully")),
        tables=NAT,
        hooks=frozenset(("POSTROUTING",)),
        protocols_by=_port_protocols,
    ),
    Extension("NETMAP", (Opt("to", kinds.network_with_mask),), tables=NAT, required=(("to",),)),
    Extension(
        "NFLOG",
        (
            Opt("nflog-prefix", kinds.cut_text(127, empty=False), quoting="auto"),
            Opt("nflog-group", number(0, 65535)),
            Opt("nflog-range", number()),
            Opt("nflog-size", number()),
            Opt("nflog-threshold", number(0, 65535)),
        ),
        exclusive=(("nflog-range", "nflog-size"),),
        finish=_finish_nflog,
    ),
    Extension(
        "NFQUEUE",
        (
            Opt("queue-num", number(0, 65535)),
            Opt("queue-balance", kinds.number_range(65535)),
            _flag("queue-bypass"),
            _flag("queue-cpu-fanout"),
        ),
        exclusive=(("queue-num", "queue-balance"),),
        requires=(("queue-cpu-fanout", "queue-balance"),),
        finish=_finish_nfqueue,
    ),
    Extension("NOTRACK", tables=RAW),
    Extension(
        "RATEEST",
        (
            Opt("rateest-name", kinds.limited_text(15)),
            Opt("rateest-interval", kinds.duration),
            Opt("rateest-ewmalog", kinds.duration),
        ),
        required=(("rateest-name",), ("rateest-interval",), ("rateest-ewmalog",)),
    ),
    Extension(
        "REDIRECT",
        (Opt("to-ports", dashed_ports), _flag("random")),
        tables=NAT,
        hooks=REDIRECTING,
        protocols_by=_port_protocols,
    ),
    Extension(
        "REJECT",
        (Opt("reject-with", kinds.reject_type),),
        tables=FILTER,
        hooks=frozenset(("INPUT", "FORWARD", "OUTPUT")),
        finish=_finish_reject,
        protocols_by=_reject_protocols,
    ),
    Extension("SECMARK", (Opt("selctx", text),), tables=SECURITY, required=(("selctx",),)),
    Extension(
        "SET",
        (
            Opt("add-set", kinds.set_reference, words=2),
            _flag("exist"),
            Opt("timeout", number()),
            Opt("del-set", kinds.set_reference, words=2),
            Opt("map-set", kinds.set_reference, words=2),
            _flag("map-mark"),
            _flag("map-prio"),
            _flag("map-queue"),
        ),
        required=(("add-set", "del-set", "map-set"),),
        finish=_finish_set,
        requires=(
            ("exist", "add-set"),
            ("timeout", "add-set"),
            ("map-mark", "map-set"),
            ("map-prio", "map-set"),
            ("map-queue", "map-set"),
        ),
    ),
    Extension(
        "SNAT",
        (
            Opt("to-source", kinds.nat_range(shifted=False)),
            _flag("random"),
            _flag("random-fully"),
            _flag("persistent"),
        ),
        tables=NAT,
        hooks=frozenset(("POSTROUTING", "INPUT")),
        required=(("to-source",),),
        protocols_by=_port_protocols,
    ),
    Extension(
        "SNPT",
        (Opt("src-pfx", kinds.network_with_mask), Opt("dst-pfx", kinds.network_with_mask)),
        V6,
        tables=MANGLE,
        hooks=frozenset(("INPUT", "POSTROUTING")),
        required=(("src-pfx",), ("dst-pfx",)),
    ),
    Extension(
        "SYNPROXY",
        (
            _flag("sack-perm"),
            _flag("timestamp"),
            Opt("wscale", number(0, 14)),
            Opt("mss", number(0, 65535)),
            _flag("ecn"),
        ),
        protocols=TCP,
        hooks=frozenset(("INPUT", "FORWARD")),
        since="1.4.21",
    ),
    Extension(
        "TCPMSS",
        (Opt("set-mss", number(0, 65535)), _flag("clamp-mss-to-pmtu", hooks=LEAVING)),
        protocols=TCP,
        required=(("set-mss", "clamp-mss-to-pmtu"),),
        exclusive=(("set-mss", "clamp-mss-to-pmtu"),),
    ),
    Extension(
        "TCPOPTSTRIP",
        (Opt("strip-options", kinds.tcp_options),),
        protocols=TCP,
        tables=MANGLE,
    ),
    Extension("TEE", (Opt("gateway", kinds.address), Opt("oif", interface)), required=(("gateway",),)),
    Extension(
        "TOS",
        (
            Opt("set-tos", kinds.tos),
            Opt("and-tos", bit_operation(lambda v, m, g: (0, ~v & 255), "02x", 255, mask=False), canonical="set-tos"),
            Opt("or-tos", bit_operation(lambda v, m, g: (v, v), "02x", 255, mask=False), canonical="set-tos"),
            Opt("xor-tos", bit_operation(lambda v, m, g: (v, 0), "02x", 255, mask=False), canonical="set-tos"),
        ),
        tables=MANGLE,
        required=(("set-tos",),),
    ),
    Extension(
        "TPROXY",
        (Opt("on-port", kinds.one_port), Opt("on-ip", kinds.address), Opt("tproxy-mark", masked(always=True))),
        protocols=frozenset((6, 17)),
        tables=MANGLE,
        hooks=frozenset(("PREROUTING",)),
        required=(("on-port",),),
        finish=_finish_tproxy,
    ),
    Extension("TRACE"),
    Extension(
        "TTL",
        (Opt("ttl-set", number(0, 255)), Opt("ttl-dec", number(1, 255)), Opt("ttl-inc", number(1, 255))),
        V4,
        tables=MANGLE,
        required=(("ttl-set", "ttl-dec", "ttl-inc"),),
        exclusive=(("ttl-set", "ttl-dec", "ttl-inc"),),
    ),
    Extension(
        "ULOG",
        (
            Opt("ulog-prefix", kinds.cut_text(31, empty=False), quoting="auto"),
            Opt("ulog-nlgroup", number(1, 32)),
            Opt("ulog-cprange", number()),
            Opt("ulog-qthreshold", number(1, 50)),
        ),
        V4,
        finish=_finish_ulog,
    ),
)

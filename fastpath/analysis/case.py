"""Cases: small hosts with packets and what becomes of them, in TOML files that people write and every engine answers.

A file is one case, or several with a common topic::

    why = "what the file is about"
    [host]                                      # the file's host; a [[case]] without base takes its keys as defaults
    base = "docker28-seed"                      # a host folder ...
    edits = ["iptables -I DOCKER-USER -j DROP"] # ... with iptables commands applied; or a host written out:
    rules = '''...'''                           # iptables-save
    ipset = '''...'''                           # ipset save
    interfaces = {eth0 = ["10.0.2.15/24"]}      # lo is added; so are the routes that addresses bring
    routes = ["default via 10.0.2.2 dev eth0"]
    sysctl = {"net.ipv4.ip_forward" = "0"}
    assume = {limit = "match"}                  # for undecided matches: by module or by "table chain number"
    tap = ["eth0"]                              # interfaces that need link-layer addresses where a kernel is asked
    [[packet]]
    name = "unique-kebab-name"
    why = "the reasoning from netfilter's rules"
    unjudged = "why a kernel cannot be asked"   # optional
    in = {iif = "eth0", src = "198.51.100.7", dst = "10.0.2.15", proto = "tcp", dport = 6380, extra = {lucky = true}}
    out = {verdict = "FORWARD", oif = "docker0", rule = "filter DOCKER 1"}
    [[counter]]                                 # over all packets of the case
    rule = "nat DOCKER 2"
    packets = 1

In a file of several cases each ``[[case]]`` has name, why, host, packet and counter of its own. ``in`` takes the packet
columns, ``out`` any of the result columns by their names in files, plus ``flags`` as ``"NAT_CHOICE"``; ``"none"`` is no
rule (routing decided) and no interface. Rule 0 is a chain's policy.

Safe direction: a key or a column that is not understood is an error, so that no expectation is passed over.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from fastpath.errors import FastpathError, ParseError
from fastpath.host.ipset import parse_ipsets
from fastpath.host.model import Host
from fastpath.host.text import make_host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.packets.result import Result
from fastpath.packets.schema import FILE_NAMES, RESULT_COLUMNS, Flag, Hook, Verdict
from fastpath.ruleset.load import read_text
from fastpath.ruleset.model import RuleRef
from fastpath.ruleset.parse import parse_ruleset

COLUMNS: dict[str, str] = {FILE_NAMES.get(c.name, c.name): c.name for c in RESULT_COLUMNS}
"""Result columns by the name that ``out`` has for them."""

_TOP = frozenset(("why", "name", "host", "packet", "counter", "case"))
_CASE = _TOP - {"case"}
_HOST = frozenset(("base", "edits", "rules", "ipset", "interfaces", "routes", "sysctl", "assume", "tap"))
_PACKET = frozenset(("name", "why", "unjudged", "in", "out"))
_COUNTER = frozenset(("rule", "packets", "bytes", "unjudged"))


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to become of one packet.

    Attributes:
        name: unique among all cases.
        why: the reasoning.
        values: expected cells by result column, as :meth:`Result.cell` writes them ("" for no rule and no interface).
        unjudged: why a kernel cannot be asked about it; empty where it can.
    """

    name: str
    why: str
    values: Mapping[str, str]
    unjudged: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedCounter:
    """What a rule or policy is to count over all packets of a case; None is not tested."""

    rule: str
    packets: int | None = None
    bytes: int | None = None
    unjudged: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A host, packets for it, and what is to become of them.

    Attributes:
        name: the file's name without suffix, with the case's own name behind a slash where the file has several.
        why: what it is about.
        host: the host.
        packets: the packets.
        expected: one entry a packet.
        counters: expected counts.
        assume: what undecided matches are taken to do: by module, or by rule id.
        tap: interfaces that must have link-layer addresses where a kernel is asked.
        source: the file.
    """

    name: str
    why: str
    host: Host
    packets: PacketBatch
    expected: tuple[Expected, ...]
    counters: tuple[ExpectedCounter, ...] = ()
    assume: Mapping[str | int, str] = field(default_factory=dict)
    tap: tuple[str, ...] = ()
    source: str = ""

    def mismatches(self, result: Result) -> list[str]:
        """Where an engine's answer differs from what is expected, one line each; empty where it does not.

        Args:
            result: the answer to `packets`, in their order.
        """
        found = []
        for row, expected in enumerate(self.expected):
            for column, wanted in expected.values.items():
                got = result.cell(column, row)
                if got != wanted:
                    found.append(f"{self.name}/{expected.name}: {column} is {got or 'none'}, not {wanted or 'none'}")
        by_label = {_label(c.ref): c for c in result.counters()}
        for counter in self.counters:
            count = by_label[counter.rule]
            for what, number, got_number in (("packets", counter.packets, count.packets),
                                             ("bytes", counter.bytes, count.bytes)):
                if number is not None and number != got_number:
                    found.append(f"{self.name}: {counter.rule} counts {got_number} {what}, not {number}")
        return found


def load_cases(path: str | Path, *, hosts: str | Path | None = None) -> list[Case]:
    """The cases of a TOML file, or of all TOML files of a folder in order of their names.

    Args:
        path: file or folder.
        hosts: where the host folders are that ``base`` names; by default ``hosts`` beside the file's own folder.

    Raises:
        FastpathError: a file, a host folder, a rule or a packet that cannot be read; the message names the case.
    """
    path = Path(path)
    if path.is_dir():
        return [case for file in sorted(path.glob("*.toml")) for case in load_cases(file, hosts=hosts)]
    folder = Path(hosts) if hosts is not None else path.resolve().parent.parent / "hosts"
    return list(_File(path, folder).cases())


class _File:
    """One case file under reading."""

    def __init__(self, path: Path, hosts: Path) -> None:
        self.path = path
        self.hosts = hosts

    def error(self, message: str) -> NoReturn:
        raise ParseError(message, source=str(self.path))

    def cases(self) -> Iterator[Case]:
        try:
            top = tomllib.loads(read_text(self.path))
        except tomllib.TOMLDecodeError as error:
            self.error(f"not TOML: {error}")
        self.keys(top, _TOP, "the file")
        why = self.text(top, "why", self.path.stem)
        if "case" not in top:
            yield self.case(self.path.stem, why, self.table(top, "host", self.path.stem), top)
            return
        if "packet" in top or "counter" in top:
            self.error("packets and counters stand inside the [[case]] that they belong to")
        defaults = self.table(top, "host", self.path.stem)
        for item in self.tables(top, "case", self.path.stem):
            self.keys(item, _CASE, "a case")
            name = f"{self.path.stem}/{self.text(item, 'name', 'a case', needed=True)}"
            own = self.table(item, "host", name)
            yield self.case(name, self.text(item, "why", name), own if "base" in own else {**defaults, **own}, item)

    def case(self, name: str, why: str, host: dict[str, Any], item: dict[str, Any]) -> Case:
        self.keys(host, _HOST, f"the host of {name}")
        try:
            made = self.host(host, name)
            rows = self.tables(item, "packet", name)
            if not rows:
                self.error(f"{name} has no packets")
            for row in rows:
                self.keys(row, _PACKET, f"a packet of {name}")
            packets = PacketBatch.from_packets([self.packet(row, name) for row in rows])
            refs = {_label(ref): ref for ref in made.ruleset.refs()}
            return Case(
                name, why, made, packets, tuple(self.expected(row, name, refs) for row in rows),
                tuple(self.counter(c, name, refs) for c in self.tables(item, "counter", name)),
                self.assume(host, name, refs), tuple(self.texts(host, "tap", name)), str(self.path),
            )
        except ParseError as error:
            if error.source == str(self.path):
                raise
            raise FastpathError(f"{self.path}: {name}: {error}") from None
        except FastpathError as error:
            raise FastpathError(f"{self.path}: {name}: {error}") from None

    # --- the host -----------------------------------------------------------------------------------------------

    def host(self, item: dict[str, Any], name: str) -> Host:
        sysctls = self.strings(item, "sysctl", name)
        ipset = self.text(item, "ipset", name)
        if "base" in item:
            if "interfaces" in item or "routes" in item:
                self.error(f"{name}: a host with a base has that folder's interfaces and routes")
            host = Host.load(self.hosts / self.text(item, "base", name))
            if sysctls:
                host = replace(host, sysctls=tuple({**dict(host.sysctls), **sysctls}.items()))
            if ipset:
                host = replace(host, ipsets=(*host.ipsets, *parse_ipsets(ipset, source=name)))
            if "rules" in item:
                host = host.with_ruleset(parse_ruleset(self.text(item, "rules", name), source=name))
        else:
            interfaces = {key: self.texts(self.table(item, "interfaces", name), key, name)
                          for key in self.table(item, "interfaces", name)}
            ruleset = parse_ruleset(self.text(item, "rules", name), source=name)
            host = make_host(ruleset, interfaces, self.texts(item, "routes", name), sysctls=sysctls, ipsets=ipset)
        return host.edit(*self.texts(item, "edits", name))

    def assume(self, item: dict[str, Any], name: str, refs: Mapping[str, RuleRef]) -> dict[str | int, str]:
        found: dict[str | int, str] = {}
        for key, value in self.strings(item, "assume", name).items():
            found[refs[key].id if key in refs else key] = value
        return found

    # --- packets ------------------------------------------------------------------------------------------------

    def packet(self, row: dict[str, Any], name: str) -> Packet:
        what = f"{name}/{self.text(row, 'name', name, needed=True)}"
        try:
            return Packet.make(**self.table(row, "in", what))
        except FastpathError as error:
            self.error(f"{what}: {error}")

    def expected(self, row: dict[str, Any], name: str, refs: Mapping[str, RuleRef]) -> Expected:
        what = f"{name}/{self.text(row, 'name', name)}"
        given = self.table(row, "out", what)
        if not given:
            self.error(f"{what} expects nothing: 'out' is missing")
        values = {self.column(key, what): self.cell(key, value, what, refs) for key, value in given.items()}
        return Expected(self.text(row, "name", what), self.text(row, "why", what), values,
                        self.text(row, "unjudged", what))

    def column(self, key: str, what: str) -> str:
        if key not in COLUMNS:
            self.error(f"{what}: 'out' has no column {key!r}; the columns are {', '.join(COLUMNS)}")
        return COLUMNS[key]

    def cell(self, key: str, value: object, what: str, refs: Mapping[str, RuleRef]) -> str:
        """An expected value as :meth:`Result.cell` writes it."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            self.error(f"{what}: {key} is a number or a text, not {value!r}")
        words: tuple[str, ...] | None = None
        if key == "verdict":
            words = tuple(v.name for v in Verdict)
        elif key == "hook":
            words = tuple(h.name for h in Hook)
        if words is not None and value not in words:
            self.error(f"{what}: {key} {value!r} is none of {', '.join(words)}")
        if key in ("rule", "oif") and value == "none":
            return ""
        if key == "rule" and value not in refs:
            self.error(f"{what}: the ruleset has no rule {value!r}; a rule is written as \"filter FORWARD 1\"")
        if key == "flags" and isinstance(value, str):
            try:
                value = sum(Flag[word] for word in value.split(","))
            except KeyError:
                self.error(f"{what}: flags {value!r} are none of {', '.join(f.name for f in Flag)}")
        return str(value)

    def counter(self, item: dict[str, Any], name: str, refs: Mapping[str, RuleRef]) -> ExpectedCounter:
        self.keys(item, _COUNTER, f"a counter of {name}")
        rule = self.text(item, "rule", name, needed=True)
        if rule not in refs:
            self.error(f"{name}: the ruleset has no rule {rule!r} to count")
        packets, count = item.get("packets"), item.get("bytes")
        if packets is None and count is None:
            self.error(f"{name}: the counter of {rule} needs packets or bytes")
        if any(isinstance(n, bool) or not isinstance(n, int | None) for n in (packets, count)):
            self.error(f"{name}: the counter of {rule} needs whole numbers")
        return ExpectedCounter(rule, packets, count, self.text(item, "unjudged", name))

    # --- TOML values --------------------------------------------------------------------------------------------

    def keys(self, item: Mapping[str, Any], known: frozenset[str], what: str) -> None:
        for key in item:
            if key not in known:
                self.error(f"{what} has no key {key!r}; the keys are {', '.join(sorted(known))}")

    def text(self, item: Mapping[str, Any], key: str, what: str, *, needed: bool = False) -> str:
        value = item.get(key, "")
        if not isinstance(value, str) or (needed and not value):
            self.error(f"{what}: {key} must be a text")
        return value

    def texts(self, item: Mapping[str, Any], key: str, what: str) -> list[str]:
        value = item.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self.error(f"{what}: {key} must be a list of texts")
        return value

    def strings(self, item: Mapping[str, Any], key: str, what: str) -> dict[str, str]:
        value = self.table(item, key, what)
        if not all(isinstance(v, str) for v in value.values()):
            self.error(f"{what}: the values of {key} must be texts")
        return value

    def table(self, item: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
        value = item.get(key, {})
        if not isinstance(value, dict):
            self.error(f"{what}: {key} must be a table")
        return value

    def tables(self, item: Mapping[str, Any], key: str, what: str) -> list[dict[str, Any]]:
        value = item.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            self.error(f"{what}: {key} must be written as [[{key}]]")
        return value


def write_case(
    path: str | Path,
    *,
    why: str,
    packets: PacketBatch,
    result: Result,
    rules: str = "",
    interfaces: Mapping[str, Sequence[str]] | None = None,
    routes: Sequence[str] = (),
    sysctl: Mapping[str, str] | None = None,
    ipset: str = "",
    base: str = "",
    edits: Sequence[str] = (),
    assume: Mapping[str, str] | None = None,
    name: str = "packet",
    columns: Sequence[str] | None = None,
) -> None:
    """Writes a case file that :func:`load_cases` reads back.

    Args:
        path: the file; its folder must exist.
        why: what the case is about.
        packets: the packets; packet ``i`` is called ``NAME-i``.
        result: what is expected of them, and of the counters of rules that counted.
        rules, interfaces, routes, sysctl, ipset: the host written out, as in the file format.
        base, edits: or a host folder's name and commands.
        assume: what undecided matches are taken to do.
        name: what the packets are called.
        columns: result columns that are expected, by their names in :class:`Result` (``src``); all by default.

    Raises:
        FastpathError: the file cannot be written.
    """
    host: list[tuple[str, object]] = [
        ("base", base), ("edits", list(edits)), ("rules", rules), ("ipset", ipset),
        ("interfaces", {key: list(value) for key, value in (interfaces or {}).items()}), ("routes", list(routes)),
        ("sysctl", dict(sysctl or {})), ("assume", dict(assume or {})),
    ]
    lines = [f"why = {_toml(why)}", "", "[host]"]
    lines += [f"{key} = {_toml(value)}" for key, value in host if value]
    for row, packet in enumerate(packets):
        given: dict[str, object] = dict(packet.as_dict())
        if packet.extra:
            given["extra"] = dict(packet.extra)
        fate = {key: _written(result.cell(column, row), key) for key, column in COLUMNS.items()
                if columns is None or column in columns}
        lines += ["", "[[packet]]", f"name = {_toml(f'{name}-{row}')}", f"in = {_toml(given)}", f"out = {_toml(fate)}"]
    for count in result.counters():
        if count.packets:
            lines += ["", "[[counter]]", f"rule = {_toml(_label(count.ref))}", f"packets = {count.packets}",
                      f"bytes = {count.bytes}"]
    try:
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise FastpathError(f"{path}: cannot be written: {error.strerror or error}") from None


def _label(ref: RuleRef) -> str:
    return f"{ref.table} {ref.chain} {ref.number}"


def _written(cell: str, key: str) -> int | str:
    if key in ("rule", "oif"):
        return cell or "none"
    return int(cell) if cell.isdigit() else cell


def _toml(value: object) -> str:
    """A value in TOML: texts, numbers, booleans, lists and tables of these."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        if "\n" in value and "'''" not in value and all(c == "\n" or c.isprintable() for c in value):
            return f"'''\n{value}'''"
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)} = {_toml(v)}" for k, v in value.items()) + "}"
    raise TypeError(f"{value!r} has no place in a case file")

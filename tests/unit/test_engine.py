"""The compiled engine around its kernels: what it takes, refuses, saves, loads, counts and reports."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from fastpath.compiler import tables
from fastpath.engine import Config, core, load_engine
from fastpath.engine import compile as compile_host
from fastpath.engine.bulk import LARGEST
from fastpath.errors import CompileError, PacketError
from fastpath.host.model import Host
from fastpath.packets import PacketBatch, Result
from fastpath.packets.schema import RESULT_COLUMNS, Verdict
from fastpath.reference import evaluate
from tests.strategies import edge_packets, random_host
from tests.unit.reference_host import ARRIVING, make_host, number, packet

DATA = Path(__file__).parents[2] / "data" / "hosts"
LIMIT = "-m limit --limit 5/min"

PLAIN = make_host(
    nat="-A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\n"
        "-A POSTROUTING -o eth0 -j MASQUERADE",
    filter="-P FORWARD DROP\n-N MINE\n-A FORWARD -o docker0 -j MINE\n-A MINE -p tcp --dport 80 -j ACCEPT\n"
           "-A MINE -p udp -j REJECT\n-A FORWARD -i docker0 -j ACCEPT\n-A INPUT -p icmp -j DROP")


def batch(*changes: dict[str, Any], extra: Mapping[str, list[bool]] | None = None) -> PacketBatch:
    """The usual arriving packet, once for each set of changes."""
    found = PacketBatch.from_packets([packet(**c) for c in changes])
    found.extra.update({name: np.array(values) for name, values in (extra or {}).items()})
    return found


def verdicts(result: Result) -> list[str]:
    return [Verdict(v).name for v in result.verdict]


def rule_id(host: Host, chain: str, rule: int) -> int:
    """Id of a rule of the filter table."""
    return next(r.id for r in host.ruleset.refs() if (r.table, r.chain, r.number) == ("filter", chain, rule))


def check_equal(found: Result, expected: Result) -> None:
    """All columns (interfaces by name) and all counters."""
    difference = found.differences(expected)
    assert not difference, str(difference)
    assert found.rules == expected.rules
    assert np.array_equal(found.rule_packets, expected.rule_packets)
    assert np.array_equal(found.rule_bytes, expected.rule_bytes)


PACKETS = edge_packets(PLAIN, 500, 1)


# --------------------------------------------------------------------------------------------- saving and loading


@pytest.mark.parametrize("host", [PLAIN, Host.load(DATA / "docker28-seed"), random_host(3), random_host(11, size=9)],
                         ids=["plain", "docker28", "drawn3", "drawn11"])
def test_a_saved_engine_evaluates_alike(tmp_path: Path, host: Host) -> None:
    engine = compile_host(host)
    packets = edge_packets(host, 300, 5)
    expected = engine.evaluate(packets)
    engine.save(tmp_path / "engine")
    loaded = load_engine(tmp_path / "engine")
    check_equal(loaded.evaluate(packets), expected)
    assert loaded.host is None and loaded.rules == engine.rules
    assert loaded.structures == engine.structures and loaded.nbytes == engine.nbytes
    assert loaded.compile_seconds == engine.compile_seconds


def test_what_was_compiled_for_is_saved(tmp_path: Path) -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD -m recent --rcheck --name x -j REJECT")
    second = rule_id(host, "FORWARD", 2)
    assume: dict[str | int, str] = {"limit": "column:burst", second: "no-match"}
    compile_host(host, table="filter", chain="FORWARD", assume=assume).save(tmp_path / "engine")
    loaded = load_engine(str(tmp_path / "engine"))
    assert (loaded.table, loaded.chain, dict(loaded.assume)) == ("filter", "FORWARD", assume)
    packets = batch({}, {}, extra={"burst": [True, False]})
    assert verdicts(loaded.evaluate(packets)) == ["DROP", "ACCEPT"]
    with pytest.raises(PacketError, match="burst"):
        loaded.evaluate(batch({}))


def test_tables_for_given_egress_are_saved_once_they_were_needed(tmp_path: Path) -> None:
    packets = batch({"oif": "docker0", "dport": 80}, {"oif": "local"})
    engine = compile_host(PLAIN)
    engine.save(tmp_path / "before")
    with pytest.raises(CompileError, match="oif"):
        load_engine(tmp_path / "before").evaluate(packets)
    before = engine.nbytes
    expected = engine.evaluate(packets)
    assert engine.nbytes > before
    engine.save(tmp_path / "after")
    loaded = load_engine(tmp_path / "after")
    check_equal(loaded.evaluate(packets), expected)
    check_equal(loaded.evaluate(PACKETS), engine.evaluate(PACKETS))


def test_a_loaded_engine_cannot_explain(tmp_path: Path) -> None:
    engine = compile_host(PLAIN)
    assert "FORWARD" in str(engine.explain(packet()))
    engine.save(tmp_path / "engine")
    with pytest.raises(CompileError, match="compile the host"):
        load_engine(tmp_path / "engine").explain(packet())


ABSENT = "absent"


def rewritten(path: Path, change: Mapping[str, Any], without: tuple[str, ...] = ()) -> Path:
    """A saved engine with other words in its head, or without some of its arrays."""
    compile_host(PLAIN).save(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name not in without}
    meta = {k: v for k, v in (json.loads(bytes(arrays["meta"])) | dict(change)).items() if v != ABSENT}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return path


def test_other_versions_and_labels_are_refused(tmp_path: Path) -> None:
    check_equal(load_engine(rewritten(tmp_path / "same", {})).evaluate(PACKETS), compile_host(PLAIN).evaluate(PACKETS))
    with pytest.raises(CompileError, match=f"version {tables.VERSION + 1}.*compile the host again"):
        load_engine(rewritten(tmp_path / "newer", {"version": tables.VERSION + 1}))
    with pytest.raises(CompileError):
        load_engine(rewritten(tmp_path / "other", {"label": "recipes"}))


@pytest.mark.parametrize(
    ("change", "without"), [({"rules": ABSENT}, ()), ({}, ("routed.rows",)), ({}, ("routed.meta",))])
def test_files_with_something_missing_are_refused(
    tmp_path: Path, change: dict[str, Any], without: tuple[str, ...]
) -> None:
    path = rewritten(tmp_path / "part", change, without)
    with pytest.raises(CompileError):
        load_engine(path).evaluate(PACKETS)


def test_files_that_are_no_engine_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "engine"
    compile_host(PLAIN).save(whole)
    data = whole.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes(b ^ 0xFF for b in data[middle:middle + 100]) + data[middle + 100:]
    np.savez(tmp_path / "numbers.npz", a=np.arange(3))
    np.save(tmp_path / "array.npy", np.arange(3))
    contents = {"text": b"hello\n", "empty": b"", "head": data[:100], "half": data[:len(data) // 2],
                "end": data[:-1], "flipped": flipped}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "numbers.npz", "array.npy", "missing", "."):
        with pytest.raises(CompileError) as error:
            load_engine(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


# ------------------------------------------------------------------------------------------------ egress columns


def test_egress_given_by_all_some_or_none() -> None:
    host = make_host(filter="-A FORWARD -o docker0 -j DROP\n-A FORWARD -o br1 -j REJECT")
    engine = compile_host(host)
    cases: list[dict[str, Any]] = [
        {}, {"dst": "9.9.9.9"}, {"oif": "br1"}, {"oif": "local"}, {"oif": "nosuch0"}, {"iif": "local"},
        {"iif": "local", "oif": "br1"},
    ]
    for chosen in (cases, [c for c in cases if "oif" in c], [c for c in cases if "oif" not in c]):
        packets = batch(*chosen)
        found = engine.evaluate(packets)
        check_equal(found, evaluate(host, packets))
    assert verdicts(engine.evaluate(batch(*cases))) == [
        "DROP", "FORWARD", "REJECT", "LOCAL_IN", "FORWARD", "LOCAL_OUT", "LOCAL_OUT"]
    found = engine.evaluate(batch(*cases))
    assert [found[i].oif for i in range(5)] == ["docker0", "tun0", "br1", None, "nosuch0"]


def test_a_host_without_routes_needs_egress_interfaces() -> None:
    host = replace(PLAIN, complete=False)
    engine = compile_host(host)
    for packets in (batch({}), batch({"oif": "docker0"}, {})):
        with pytest.raises(PacketError, match="routes are not known: give the packets an oif column"):
            engine.evaluate(packets)
    given = batch({"oif": "docker0", "dport": 80}, {"oif": "eth0"}, {"oif": "local"}, {"iif": "local", "oif": "eth0"})
    check_equal(engine.evaluate(given), evaluate(host, given))
    assert verdicts(engine.evaluate(given)) == ["FORWARD", "DROP", "LOCAL_IN", "LOCAL_OUT"]


def test_chains_that_see_no_egress_need_no_routes() -> None:
    host = replace(PLAIN, complete=False)
    for table, chain, ready in (("filter", "INPUT", True), ("nat", "PREROUTING", True), ("filter", "FORWARD", False)):
        engine = compile_host(host, table=table, chain=chain)
        if ready:
            check_equal(engine.evaluate(PACKETS), evaluate(host, PACKETS, table=table, chain=chain))
        else:
            with pytest.raises(PacketError, match="oif"):
                engine.evaluate(PACKETS)


def test_no_packets(tmp_path: Path) -> None:
    for host in (PLAIN, replace(PLAIN, complete=False)):
        engine = compile_host(host)
        engine.save(tmp_path / "engine")
        for ready in (engine, load_engine(tmp_path / "engine")):
            found = ready.evaluate(PacketBatch.empty())
            assert len(found) == 0 and not found.rule_packets.any() and len(found.rules) == len(host.ruleset.refs())
            assert {c.name: getattr(found, c.name).dtype for c in RESULT_COLUMNS} == {
                c.name: np.dtype(c.dtype) for c in RESULT_COLUMNS}


def test_packets_of_the_other_family_are_refused() -> None:
    six = PacketBatch.from_columns(
        {"iif": "eth0", "src": ["2001:db8::1"], "dst": ["2001:db8::2"], "proto": 6}, 1, family=6)
    with pytest.raises(PacketError, match="IPv6"):
        compile_host(PLAIN).evaluate(six)


# --------------------------------------------------------------------------------------------------- interfaces


def test_names_that_the_host_has_not() -> None:
    """A packet may come from any interface: wildcards match by prefix, the longest prefix counts, others are others."""
    host = make_host(filter="-A FORWARD -i veth+ -p udp -j ACCEPT\n-A FORWARD -i ve+ -j REJECT\n"
                            "-A FORWARD ! -i eth+ -j DROP\n-A FORWARD -i wlan0 -j DROP")
    names = ("veth1", "veth", "ve9", "ve", "v", "zzz", "eth7", "eth0", "wlan0", "lo", "docker0")
    packets = batch(*({"iif": name} for name in names), *({"iif": name, "proto": "udp"} for name in names))
    found = compile_host(host).evaluate(packets)
    check_equal(found, evaluate(host, packets))
    assert verdicts(found)[:4] == ["REJECT"] * 4 and verdicts(found)[6] == "FORWARD"
    assert verdicts(found)[len(names)] == "FORWARD"


def test_given_egress_with_unknown_names() -> None:
    host = make_host(filter="-A FORWARD -o wg+ -j DROP\n-A OUTPUT ! -o eth0 -j REJECT",
                     nat="-A POSTROUTING -o wg+ -j MASQUERADE\n-A PREROUTING -i zz+ -p tcp -j REDIRECT --to-ports 99")
    packets = batch(*({"iif": i, "oif": o} for i in ("zz1", "eth0", "local") for o in ("wg0", "zz", "local", "eth0")))
    check_equal(compile_host(host).evaluate(packets), evaluate(host, packets))


def test_egress_names_beyond_the_packets_dictionary() -> None:
    """Interfaces that only routing names are added behind the packets' own."""
    packets = batch({}, {"dst": "9.9.9.9"})
    assert packets.interfaces == ("eth0",)
    found = compile_host(make_host(filter="")).evaluate(packets)
    assert found.interfaces[0] == "eth0"
    assert [found[0].oif, found[1].oif] == ["docker0", "tun0"]


# -------------------------------------------------------------------------------------------------- assumptions


ASSUMED = make_host(filter=f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD -p tcp -m recent --rcheck --name x -j REJECT\n"
                           f"-A FORWARD {LIMIT} -j REJECT")


def test_assumptions_by_module_rule_and_column() -> None:
    first, third = (rule_id(ASSUMED, "FORWARD", number) for number in (1, 3))
    packets = batch({}, {"proto": "udp"}, {}, extra={"burst": [False, True, True], "other": [True, False, False]})
    cases: list[tuple[dict[str | int, str], list[str]]] = [
        ({}, ["UNDECIDED"] * 3),
        ({"limit": "match"}, ["DROP"] * 3),
        ({"limit": "no-match", "recent": "no-match"}, ["FORWARD"] * 3),
        ({"limit": "no-match", "recent": "match"}, ["REJECT", "FORWARD", "REJECT"]),
        ({"limit": "no-match"}, ["UNDECIDED", "FORWARD", "UNDECIDED"]),
        ({"limit": "match", first: "no-match", "recent": "no-match"}, ["REJECT"] * 3),
        ({"limit": "column:burst", "recent": "no-match", third: "no-match"}, ["FORWARD", "DROP", "DROP"]),
        ({"limit": "column:burst", "recent": "column:other"}, ["REJECT", "DROP", "DROP"]),
    ]
    for assume, expected in cases:
        found = compile_host(ASSUMED, assume=assume).evaluate(packets)
        assert verdicts(found) == expected, assume
        check_equal(found, evaluate(ASSUMED, packets, assume=assume))


def test_a_column_that_is_assumed_must_be_there() -> None:
    engine = compile_host(ASSUMED, assume={"limit": "column:burst"})
    with pytest.raises(PacketError, match="burst"):
        engine.evaluate(batch({}, extra={"other": [True]}))


def test_columns_that_nobody_asks_for_are_ignored() -> None:
    check_equal(compile_host(PLAIN).evaluate(batch({}, extra={"x": [True]})), compile_host(PLAIN).evaluate(batch({})))


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("arguments", "message"), [
    ({"table": "filter", "chain": "NOBODY"}, "no chain NOBODY in table filter"),
    ({"table": "mangle", "chain": "FORWARD"}, "no chain FORWARD in table mangle"),
    ({"assume": {"limit": "maybe"}}, "maybe.*match, no-match or column:NAME"),
    ({"assume": {999: "match"}}, "999"),
    ({"assume": {"limit": "column:"}}, "column"),
])
def test_what_cannot_be_compiled(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        compile_host(PLAIN, **arguments)


@pytest.mark.parametrize("which", [{"table": "filter"}, {"chain": "FORWARD"}])
def test_half_a_chain_is_not_taken_for_the_whole_path(which: dict[str, str]) -> None:
    with pytest.raises(CompileError, match="both"):
        compile_host(PLAIN, **which)  # type: ignore[arg-type]


def nested(depth: int) -> Host:
    """A chain that jumps to a chain that jumps to a chain ..."""
    names = [f"C{i}" for i in range(depth)]
    jumps = [f"-A {a} -p tcp -j {b}" for a, b in zip(["FORWARD", *names], [*names, "DROP"], strict=True)]
    return make_host(filter="\n".join([*(f"-N {name}" for name in names), *jumps]))


def test_chains_nested_deeply() -> None:
    host = nested(240)
    packets = batch({}, {"proto": "udp"})
    for config in (Config(), Config(structure="linear")):
        check_equal(compile_host(host, config=config).evaluate(packets), evaluate(host, packets))
    with pytest.raises(CompileError, match="nest deeper"):
        compile_host(nested(300), config=Config(structure="linear"))


# ------------------------------------------------------------------------------------------------- single chains


def test_chains_alone() -> None:
    packets = batch({"dport": 80}, {"proto": "udp"}, {"dport": 81})
    for chain, expected in (("MINE", ["ACCEPT", "REJECT", "RETURN"]), ("FORWARD", ["ACCEPT", "REJECT", "DROP"])):
        found = compile_host(PLAIN, table="filter", chain=chain).evaluate(packets)
        assert verdicts(found) == expected
        check_equal(found, evaluate(PLAIN, packets, table="filter", chain=chain))


@pytest.mark.kernels
def test_a_chain_without_tests_alone() -> None:
    """No field is looked at, by either kernel."""
    host = make_host(filter="-A INPUT -j ACCEPT")
    packets = batch({"dport": 80}, {"proto": "udp"})
    expected = evaluate(host, packets, table="filter", chain="INPUT")
    engine = compile_host(host, table="filter", chain="INPUT")
    check_equal(engine.evaluate(packets), expected)
    with patch("fastpath.engine.core.run_bulk", return_value=None):
        check_equal(engine.evaluate(packets), expected)


@pytest.mark.parametrize("name", ["docker28-seed", "docker20-seed"])
def test_every_chain_of_a_docker_host(name: str) -> None:
    host = Host.load(DATA / name)
    packets = edge_packets(host, 200, 2)
    for table in host.ruleset.tables:
        for chain in table.chains:
            found = compile_host(host, table=table.name, chain=chain.name).evaluate(packets)
            check_equal(found, evaluate(host, packets, table=table.name, chain=chain.name))


# ------------------------------------------------------------------------------------------------------ counters


def test_counters_are_the_sum_over_packets() -> None:
    """One packet at a time or all at once, with one length or many."""
    engine = compile_host(PLAIN)
    rows = [0, 3, 50, 51, 52, 53, 54, 200, 201, 499]
    together = engine.evaluate(PACKETS.take(rows))
    alone = [engine.evaluate(PACKETS[i:i + 1]) for i in rows]
    assert np.array_equal(together.rule_packets, sum(r.rule_packets for r in alone))
    assert np.array_equal(together.rule_bytes, sum(r.rule_bytes for r in alone))
    lengths = PACKETS.column("length")[rows]
    assert np.array_equal(sum(r.rule_packets * int(n) for r, n in zip(alone, lengths, strict=True)),
                          together.rule_bytes)
    assert together.rule_packets.any()


@pytest.mark.parametrize("linear", [False, True])
def test_bytes_follow_the_length_column(linear: bool) -> None:
    engine = compile_host(PLAIN, config=Config(structure="linear" if linear else None))
    one = engine.evaluate(batch(*[{"dport": 80}] * 3))
    assert np.array_equal(one.rule_bytes, one.rule_packets * 60)
    constant = PacketBatch.from_columns({**ARRIVING, "length": 1500}, 4)
    assert np.array_equal(engine.evaluate(constant).rule_bytes, engine.evaluate(constant).rule_packets * 1500)
    mixed = engine.evaluate(batch({"dport": 80, "length": 65535}, {"dport": 80, "length": 20}, {"length": 0}))
    accepted = rule_id(PLAIN, "MINE", 1)
    assert (mixed.rule_packets[accepted], mixed.rule_bytes[accepted]) == (3, 65555)


def test_nothing_is_left_over_from_one_evaluation_to_the_next() -> None:
    engine = compile_host(PLAIN)
    first, second = engine.evaluate(PACKETS), engine.evaluate(PACKETS)
    check_equal(second, first)
    assert first.verdict is not second.verdict


# ----------------------------------------------------------------------------------------------- attributes, use


def test_attributes() -> None:
    engine = compile_host(PLAIN)
    assert engine.rules == PLAIN.ruleset.refs()
    assert engine.host is PLAIN
    assert 0 < engine.compile_seconds < 600
    assert engine.nbytes >= sum(a.nbytes for a in engine.routed.arrays.values())  # type: ignore[union-attr]
    assert set(engine.structures.values()) == {"diagram"}
    assert set(compile_host(PLAIN, config=Config(structure="linear")).structures.values()) == {"linear"}


def test_a_budget_that_is_too_small_leads_to_linear_stages_with_the_same_answers() -> None:
    tiny = compile_host(PLAIN, config=Config(max_words=40))
    assert "linear" in tiny.structures.values()
    check_equal(tiny.evaluate(PACKETS), compile_host(PLAIN).evaluate(PACKETS))
    check_equal(compile_host(PLAIN, config=Config(max_product=1)).evaluate(PACKETS), tiny.evaluate(PACKETS))


def test_the_tables_for_given_egress_are_made_when_needed() -> None:
    engine = compile_host(PLAIN)
    assert engine.given is None
    engine.evaluate(PACKETS)
    assert engine.given is None
    engine.evaluate(batch({"oif": "docker0"}))
    made = engine.given
    engine.evaluate(batch({"oif": "eth0"}))
    assert made is not None and engine.given is made
    assert compile_host(replace(PLAIN, complete=False)).routed is None


@pytest.mark.parametrize("threads", [1, 2, None])
def test_progress_reaches_the_number_of_packets(threads: int | None) -> None:
    n = 2 * LARGEST + 3
    packets = PacketBatch.from_columns({**ARRIVING, "dport": np.arange(n, dtype=np.uint16)}, n)
    seen: list[tuple[int, int]] = []
    compile_host(PLAIN).evaluate(packets, threads=threads, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (n, n) and len(seen) >= 3
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_progress_counts_both_kinds_of_packets() -> None:
    seen: list[int] = []
    packets = batch({}, {"oif": "docker0"}, {}, {"oif": "eth0"}, {})
    compile_host(PLAIN).evaluate(packets, progress=lambda done, total: seen.append(done))
    assert seen == [3, 5]


def test_two_threads_may_evaluate_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all need tables that nobody has made yet: they are made once."""
    engine = compile_host(PLAIN)
    made: list[bool] = []

    def slowly(*args: Any, given_oif: bool, **options: Any) -> tables.Compiled:
        made.append(given_oif)
        time.sleep(0.1)
        return tables.compile_tables(*args, given_oif=given_oif, **options)

    given = edge_packets(PLAIN, 3000, 9, egress=True)
    expected = compile_host(PLAIN).evaluate(given), compile_host(PLAIN).evaluate(PACKETS)
    monkeypatch.setattr(core, "compile_tables", slowly)
    found: list[tuple[Result, Result]] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        found.append((engine.evaluate(given), engine.evaluate(PACKETS)))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 and made == [True]
    for pair in found:
        check_equal(pair[0], expected[0])
        check_equal(pair[1], expected[1])


def test_the_engine_tells_what_it_is_briefly() -> None:
    assert len(repr(compile_host(PLAIN))) < 500


def test_a_result_names_the_rules_that_decided() -> None:
    found = compile_host(PLAIN).evaluate(batch({"dst": "10.0.2.15", "dport": 8080}))
    assert (found[0].dst, found[0].dport, found[0].oif) == (number("172.17.0.2"), 80, "docker0")
    ref = found.rules[found[0].rule]
    assert (ref.table, ref.chain, ref.number) == ("filter", "MINE", 1)

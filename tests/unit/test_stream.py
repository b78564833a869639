"""Packets that stream through: the same answers as all at once, whatever they come from and go to; clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastpath as fp
from fastpath.packets.pieces import pieces
from fastpath.packets.result import rule_label

HOST = fp.Host.load(Path(__file__).parents[2] / "data" / "hosts" / "docker28-seed")
N = 50_000
ROWS = 1 << 14


@pytest.fixture(scope="module")
def engine() -> fp.Engine:
    return fp.compile(HOST)


@pytest.fixture(scope="module")
def packets() -> fp.PacketBatch:
    return fp.synth.packets(HOST, N, seed=4, profile="edges")


@pytest.fixture(scope="module")
def full(engine: fp.Engine, packets: fp.PacketBatch) -> fp.Result:
    return engine.evaluate(packets)


@pytest.fixture
def folder(packets: fp.PacketBatch, tmp_path: Path) -> Path:
    """Three files of several row groups, and what is passed over: hidden and underscored names."""
    path = tmp_path / "in"
    path.mkdir()
    for i, (a, b) in enumerate(((0, 20_000), (20_000, 20_001), (20_001, N))):
        pq.write_table(packets[a:b].to_arrow(), path / f"day{i}.parquet", row_group_size=7_000)
    (path / "_SUCCESS").write_text("")
    (path / ".hidden").write_text("")
    return path


def check_totals(totals: object, full: fp.Result) -> None:
    from fastpath.packets.totals import Totals

    assert isinstance(totals, Totals)
    assert totals.packets == len(full)
    assert totals.summary(None) == full.summary(None)
    assert totals.counters() == full.counters()
    pairs = np.bincount(full.verdict.astype(int) * 6 + full.hook, minlength=54)
    np.testing.assert_array_equal(totals.ended.ravel(), pairs)
    assert totals.choices == int((full.flags & 1).sum())


def sources(packets: fp.PacketBatch, folder: Path) -> Iterator[tuple[str, object]]:
    batches = [packets[a:a + 9_999] for a in range(0, N, 9_999)]
    table = packets.to_arrow()
    yield "folder", folder
    yield "text path", str(folder)
    yield "batch", packets
    yield "iterator of batches", iter(batches)
    yield "table", table
    yield "record batches", table.to_batches(max_chunksize=8_000)
    yield "reader", pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=8_000))
    yield "pandas", packets.to_arrow().to_pandas()
    yield "made up", fp.synth.stream(HOST, N, 4, "edges", ROWS)


def test_every_source_gives_the_same(
    engine: fp.Engine, packets: fp.PacketBatch, full: fp.Result, folder: Path
) -> None:
    for name, source in sources(packets, folder):
        found = [r for _, r in engine.evaluate_stream(source, rows=ROWS)]
        assert max(map(len, found)) <= ROWS, name
        for column in full.columns:
            if column != "oif":
                joined = np.concatenate([r.column(column) for r in found])
                np.testing.assert_array_equal(joined, full.column(column), err_msg=f"{name}: {column}")
        oif = [(*r.interfaces, None)[code] for r in found for code in r.oif.tolist()]
        assert oif == [(*full.interfaces, None)[code] for code in full.oif.tolist()], name


def test_totals_are_those_of_all_at_once(engine: fp.Engine, full: fp.Result, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    stream = engine.evaluate_stream(folder, rows=ROWS, progress=lambda done, of: seen.append((done, of)))
    assert stream.expected == N
    check_totals(stream.run(), full)
    assert seen[-1] == (N, N) and len(seen) > 3
    assert stream.seconds > 0


def test_a_folder_becomes_a_folder(
    engine: fp.Engine, packets: fp.PacketBatch, full: fp.Result, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    check_totals(engine.evaluate_stream(folder, rows=ROWS).write(out), full)
    assert sorted(p.name for p in out.iterdir()) == ["day0.parquet", "day1.parquet", "day2.parquet"]
    table = pa.concat_tables([pq.read_table(p) for p in sorted(out.iterdir())])
    assert table.to_pylist() == full.to_arrow(packets).to_pylist()
    assert fp.read_parquet(out / "day0.parquet").equals(packets[:20_000])


@pytest.mark.parametrize("end", ["parquet", "csv"])
def test_one_file(
    engine: fp.Engine, packets: fp.PacketBatch, full: fp.Result, folder: Path, tmp_path: Path, end: str
) -> None:
    out, at_once = tmp_path / f"out.{end}", tmp_path / f"at_once.{end}"
    engine.evaluate_stream(folder, rows=ROWS).write(out)
    if end == "csv":
        full.to_csv(at_once, packets)
        assert out.read_bytes() == at_once.read_bytes()
        again = tmp_path / "again.csv"
        engine.evaluate_stream(out).write(again)
        assert again.read_bytes() == out.read_bytes()
    else:
        assert pq.read_table(out).to_pylist() == full.to_arrow(packets).to_pylist()


def test_columns_and_forms(engine: fp.Engine, full: fp.Result, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    totals = engine.evaluate_stream(folder, columns=["verdict", "rule", "dst"], counters=False).write(
        out, packets=False, addresses="int")
    table = pq.read_table(out)
    assert table.column_names == ["verdict", "rule", "post_dst"]
    np.testing.assert_array_equal(table["post_dst"].to_numpy(), full.dst)
    labels = [rule_label(r) for r in full.rules]
    assert table["rule"].to_pylist() == [labels[r] if r >= 0 else None for r in full.rule.tolist()]
    assert totals.summary() == full.summary()
    with pytest.raises(fp.AbsentColumnError):
        totals.counters()


def test_made_up_packets_into_parts(
    engine: fp.Engine, full: fp.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastpath.packets.writer.PART", 2 * ROWS)
    out = tmp_path / "out"
    engine.evaluate_stream(fp.synth.stream(HOST, N, 4, "edges", ROWS)).write(out, packets=False)
    assert [len(pq.read_table(p)) for p in sorted(out.iterdir())] == [2 * ROWS, N - 2 * ROWS]
    assert (out / "part-00001.parquet").exists()
    table = pa.concat_tables([pq.read_table(p) for p in sorted(out.iterdir())])
    assert table.to_pylist() == full.to_arrow().to_pylist()


@pytest.mark.parametrize("n", [1, ROWS, ROWS + 1, 3 * ROWS - 1])
def test_made_up_batches_are_the_made_up_packets(n: int) -> None:
    for profile in fp.synth.PROFILES:
        batches = list(fp.synth.stream(HOST, n, 9, profile, ROWS))
        assert [len(b) for b in batches[:-1]] == [ROWS] * (len(batches) - 1)
        assert fp.PacketBatch.concat(batches).equals(fp.synth.packets(HOST, n, 9, profile))
    with pytest.raises(fp.PacketError, match="a multiple of 16384 is needed"):
        fp.synth.stream(HOST, 100_000, rows=50_000)


def test_new_interfaces_and_columns_on_the_way(engine: fp.Engine, packets: fp.PacketBatch, tmp_path: Path) -> None:
    """Dictionaries grow from piece to piece; other columns begin another file, and fit into no single one."""
    few = packets[:10]
    given = {name: few.column(name) for name in ("src", "dst", "proto", "dport")}
    named = [fp.PacketBatch.from_columns(given | {"iif": f"eth{i}"}) for i in range(300)]
    out = tmp_path / "grown.parquet"
    engine.evaluate_stream(named).write(out)
    assert pq.read_table(out)["iif"].to_pylist() == [f"eth{i}" for i in range(300) for _ in range(10)]
    marked = fp.PacketBatch.from_columns(given | {"iif": "eth0", "mark": 7})
    with pytest.raises(fp.PacketError, match="with and without mark do not fit into one file: write to a folder"):
        engine.evaluate_stream([named[0], marked]).write(tmp_path / "one.parquet")
    assert not (tmp_path / "one.parquet").exists()
    engine.evaluate_stream([named[0], marked, marked]).write(tmp_path / "two")
    assert [len(pq.read_table(p)) for p in sorted((tmp_path / "two").iterdir())] == [10, 20]


def test_no_packets(engine: fp.Engine, packets: fp.PacketBatch, tmp_path: Path) -> None:
    empty = tmp_path / "in"
    empty.mkdir()
    pq.write_table(packets[:0].to_arrow(), empty / "a.parquet")
    (empty / "b.csv").write_text("iif,src,dst,proto\n")
    totals = engine.evaluate_stream(empty).write(tmp_path / "out")
    assert totals.packets == 0 and str(totals.summary()) == "0 packets"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.parquet", "b.parquet"]
    engine.evaluate_stream([]).write(tmp_path / "none.parquet", packets=False)
    assert pq.read_table(tmp_path / "none.parquet").column_names[0] == "verdict"


def test_errors_name_file_and_row_group(
    engine: fp.Engine, packets: fp.PacketBatch, folder: Path, tmp_path: Path
) -> None:
    table = packets[:20_000].to_arrow()
    words = table["dst"].to_pylist()
    words[15_000] = "10.0.0.256"
    bad = table.set_column(table.column_names.index("dst"), "dst", pa.array(words))
    pq.write_table(bad, folder / "day1.parquet", row_group_size=7_000)
    with pytest.raises(fp.PacketError, match=r"day1.parquet: row group 2: column dst: row 1000: .*10.0.0.256"):
        engine.evaluate_stream(folder).run()
    with pytest.raises(fp.PacketError, match=r"row group 2, from its row 900 on: column dst: row 100: "):
        engine.evaluate_stream(folder, rows=900).write(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["day0.parquet"]  # day1 was not finished
    raw = (folder / "day2.parquet").read_bytes()
    (folder / "day1.parquet").write_bytes(raw[:len(raw) // 2])
    with pytest.raises(fp.PacketError, match=r"day1.parquet: "):
        engine.evaluate_stream(folder)
    text = tmp_path / "bad.csv"
    text.write_text("iif,src,dst,proto\neth0,1.2.3.4,5.6.7.8,tcp\neth0,1.2.3.4,5.6.7,tcp\n")
    with pytest.raises(fp.PacketError, match=r"bad.csv: column dst: row 1: .*5\.6\.7"):
        engine.evaluate_stream(text).run()
    with pytest.raises(fp.PacketError, match="batch 1: column dst"):
        engine.evaluate_stream([table.to_batches()[0], bad.slice(15_000, 1)]).run()


def test_places_that_are_refused(engine: fp.Engine, packets: fp.PacketBatch, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(fp.PacketError, match="no such file or folder"):
        engine.evaluate_stream(tmp_path / "missing.parquet")
    with pytest.raises(fp.PacketError, match="int is no source of packets"):
        list(pieces(7))
    with pytest.raises(fp.PacketError, match=r"the folder holds .*; results go into an empty or new one"):
        engine.evaluate_stream(packets).write(folder)
    (folder / "notes.txt").write_text("")
    with pytest.raises(fp.PacketError, match="notes.txt: a packet file ends in .parquet or .csv"):
        engine.evaluate_stream(folder)
    with pytest.raises(fp.PacketError, match="no packet files in it"):
        (tmp_path / "void").mkdir()
        engine.evaluate_stream(tmp_path / "void")
    with pytest.raises(fp.PacketError, match="nowhere"):
        engine.evaluate_stream(packets).write(tmp_path / "nowhere" / "x.parquet")
    with pytest.raises(fp.PacketError, match="pieces of 0 packets"):
        engine.evaluate_stream(packets, rows=0)


def test_packets_without_an_egress_interface_name_their_file(folder: Path) -> None:
    from dataclasses import replace

    engine = fp.compile(replace(HOST, complete=False))
    with pytest.raises(fp.PacketError, match=r"day0.parquet: the host's routes are not known"):
        engine.evaluate_stream(folder).run()

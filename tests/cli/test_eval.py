"""``fastpath eval``: what goes in, what is printed, what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fastpath.cli.values import parse_assumptions, parse_count

pytestmark = pytest.mark.cli

PACKETS = """\
iif,src,dst,proto,sport,dport,length
eth0,198.51.100.7,10.0.2.15,6,40000,8080,60
eth0,203.0.113.9,10.0.2.15,6,40000,8080,70
eth0,198.51.100.7,172.17.0.2,17,40000,53,80
docker0,172.17.0.2,192.0.2.1,17,40000,53,90
eth0,198.51.100.7,10.0.2.15,6,40000,22,100
"""


@pytest.fixture
def packets(tmp_path: Path) -> Path:
    path = tmp_path / "packets.csv"
    path.write_text(PACKETS)
    return path


def test_summary_as_json(fastpath, host, packets):
    done = fastpath("eval", "--host", host, "--packets", packets, "--json", "--counters")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["packets"] == 5
    assert summary["verdicts"] == {"FORWARD": 1, "LOCAL_IN": 1, "DROP": 1, "REJECT": 1, "UNDECIDED": 1}
    assert summary["ended_at"]["REJECT FORWARD"] == 1
    decided = {(row["chain"], row["number"]): row["packets"] for row in summary["rules"]}
    assert decided == {("WEB", 2): 1, ("WEB", 1): 1, ("FORWARD", 0): 1, ("FORWARD", 3): 1, ("INPUT", 0): 1}
    counted = {(row["table"], row["chain"], row["number"]): row for row in summary["counters"]}
    assert counted["nat", "PREROUTING", 1]["packets"] == 2
    assert counted["nat", "PREROUTING", 1]["bytes"] == 130
    assert counted["filter", "WEB", 1]["bytes"] == 70


def test_assumption_decides(fastpath, host, packets):
    done = fastpath("eval", "--host", host, "--packets", packets, "--json", "--assume", "limit=no-match")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdicts"] == {"FORWARD": 2, "LOCAL_IN": 1, "DROP": 1, "REJECT": 1}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_out_has_a_row_for_every_packet(fastpath, host, packets, tmp_path, suffix):
    out = tmp_path / f"out.{suffix}"
    done = fastpath("eval", "--host", host, "--packets", packets, "--out", out)
    assert done.returncode == 0, done.stderr
    if suffix == "csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        import pyarrow.parquet as pq

        rows = pq.read_table(out).to_pylist()
    assert len(rows) == 5
    assert rows[0]["verdict"] == "FORWARD"
    assert rows[0]["src"] == "198.51.100.7"
    assert rows[0]["post_dst"] == "172.17.0.2"
    assert int(rows[0]["post_dport"]) == 80
    assert rows[0]["oif"] == "docker0"


def test_printed_summary_names_verdicts_and_rules(fastpath, host, packets):
    done = fastpath("eval", "--host", host, "--packets", packets, "--counters")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "-A WEB -s 203.0.113.0/24 -j REJECT --reject-with icmp-port-unreachable" in done.stdout
    assert "UNDECIDED" in done.stdout
    assert "5 packets in" in done.stdout


def test_folders_and_columns(fastpath, host, packets, tmp_path):
    """A folder in, a folder out, two result columns, no packets beside them."""
    import pyarrow.parquet as pq

    days = tmp_path / "days"
    days.mkdir()
    for name in ("a.csv", "b.csv"):
        (days / name).write_text(PACKETS)
    words = ["eval", "--host", host, "--packets", days, "--columns", "verdict,rule", "--results-only", "--json"]
    done = fastpath(*words, "--out", tmp_path / "fates")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["packets"] == 10 and summary["columns"] == ["verdict", "rule"]
    assert summary["verdicts"]["REJECT"] == 2 and "ended_at" not in summary and "nat_choices" not in summary
    table = pq.read_table(tmp_path / "fates" / "b.parquet")
    assert table.column_names == ["verdict", "rule"] and len(table) == 5
    again = fastpath(*words, "--out", tmp_path / "fates")
    assert again.returncode == 2 and "results go into an empty or new one" in again.stderr
    one = fastpath("eval", "--host", host, "--packets", tmp_path / "fates", "--columns", "verdict")
    assert one.returncode == 2 and "a.parquet: " in one.stderr  # results alone are no packets
    printed = fastpath("eval", "--host", host, "--packets", days, "--columns", "verdict,oiff")
    assert printed.returncode == 2 and "unknown result column 'oiff'" in printed.stderr
    printed = fastpath("eval", "--host", host, "--packets", days, "--columns", "verdict")
    assert printed.returncode == 0 and "REJECT" in printed.stdout and "10 packets in" in printed.stdout


def test_warmup_says_where_the_kernels_are(fastpath):
    done = fastpath("warmup")
    assert done.returncode == 0, done.stderr
    assert "kernels ready after" in done.stdout and "kernels-" in done.stdout


def test_bench_measures_these_rules(fastpath, host):
    done = fastpath("bench", "--host", host, "-n", "2k", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["count"] == 2000 and found["table_bytes"] > 0 and found["rules"] == 13
    assert [row["packets"] for row in found["rates"]] == ["traffic", "edges", "uniform"]
    assert all(row[key] > 0 for row in found["rates"] for key in ("one_core", "all_cores", "verdicts"))


def test_made_up_packets_are_the_same_again(fastpath, host):
    words = ["eval", "--host", host, "--synth", "traffic", "-n", "2k", "--seed", "7", "--json"]
    first, second = (json.loads(fastpath(*words).stdout) for _ in range(2))
    assert first["packets"] == 2000
    assert first["verdicts"] == second["verdicts"]
    assert first["rules"] == second["rules"]


def test_one_chain_alone(fastpath, host, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("iif,oif,src,dst,proto,dport\neth0,docker0,203.0.113.9,172.17.0.2,6,80\n"
                    "eth0,docker0,198.51.100.7,172.17.0.2,6,80\neth0,docker0,198.51.100.7,172.17.0.3,6,80\n")
    done = fastpath("eval", "--host", host, "--packets", path, "--table", "filter", "--chain", "WEB", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdicts"] == {"REJECT": 1, "ACCEPT": 1, "RETURN": 1}


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("250000", 250_000), ("250_000", 250_000), ("200k", 200_000), ("10M", 10_000_000), ("1e6", 1_000_000),
     ("1.5M", 1_500_000), ("2G", 2_000_000_000)],
)
def test_count(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "ten", "1e400", "nan", "M", "1x"])
def test_count_refuses(text):
    import typer

    with pytest.raises(typer.BadParameter, match="is not a count"):
        parse_count(text)


def test_assumptions():
    assert parse_assumptions(["limit=match", "57=no-match", "owner=column:mine"]) == {
        "limit": "match", 57: "no-match", "owner": "column:mine"
    }
    assert parse_assumptions([]) is None


@pytest.mark.parametrize("text", ["limit", "limit=", "=match", "limit=maybe", "limit=column:"])
def test_assumptions_refuse(text):
    import typer

    with pytest.raises(typer.BadParameter, match="is not an assumption"):
        parse_assumptions([text])

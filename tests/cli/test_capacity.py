"""``fastpath capacity cost`` and ``sweep``."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.cli


def test_cost_shows_classes_chains_and_rules(fastpath):
    done = fastpath("capacity", "cost", "--host", "data/hosts/docker28-seed", "-n", "2k", "--backend", "legacy",
                    "--reorder")
    assert done.returncode == 0, done.stderr
    for part in ("a packet with iptables-legacy", "p99", "flow class", "filter DOCKER", "examined  matched  rule",
                 "calibration: ", "assumed: "):
        assert part in done.stdout, part


def test_cost_as_json_is_what_the_report_reads(fastpath):
    done = fastpath("capacity", "cost", "--host", "data/hosts/docker28-seed", "-n", "2k", "--json")
    found = json.loads(done.stdout)
    assert found["backend"] == "nft" and found["packets"] == 2000
    assert found["mean_ns"] > found["base_ns"] > 0 and len(found["top_rules"]) == 10
    assert set(found["percentiles"]) == {"50", "90", "99", "99.9", "100"}


def test_sweep_prints_rows_and_writes_them(fastpath, tmp_path):
    out = tmp_path / "rows.csv"
    done = fastpath("capacity", "sweep", "--grow", "rules", "--sizes", "0,50", "--engine", "28", "-n", "300",
                    "--budget-ns", "1", "--budget-mpps", "0.001", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "broken at 0 rules" in done.stdout and "0.001 Mpps on 1 core not reached" in done.stdout
    assert len(out.read_text().splitlines()) == 3


def test_bad_input_is_one_clear_error(fastpath, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    for words, complaint in (
        (("cost", "--host", "data/hosts/docker28-seed", "--calibration", str(tmp_path / "bad.json")), "no calibration"),
        (("sweep", "--sizes", "x"), "sizes such as 10:200:10"),
        (("sweep", "--out", "x.txt"), ".csv or .parquet"),
    ):
        done = fastpath("capacity", *words)
        assert done.returncode == 2 and complaint in done.stderr.replace("\n", " "), done.stderr
        assert "Traceback" not in done.stderr

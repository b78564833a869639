"""What the measurements in bench/ are made of: peers with right answers, rules like those they imitate, the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastpath as fp
from bench import classbench, masks, report, rte, rulesets, traces
from bench.report import Row
from fastpath.host.model import Host
from fastpath.packets import PacketBatch
from fastpath.reference.evaluate import Reference


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", ["docker28-seed", "docker20-seed"])
def test_masks_walk_the_whole_path(name: str, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "CHUNK", 300)
    host = rulesets.host(name)
    kinds = [fp.synth.packets(host, 250, seed=3, profile=profile) for profile in ("traffic", "edges", "uniform")]
    packets = PacketBatch.concat(kinds)
    differences = masks.Masks(host, plain=plain).evaluate(packets).differences(Reference(host).evaluate(packets))
    assert not differences, str(differences)


def test_masks_walk_one_chain() -> None:
    host = rulesets.host("docker28-seed")
    rules = rulesets.chain_rules("docker28-seed", "filter", "FORWARD")
    packets = traces.batch(rules, traces.headers(rules, 1000, "edges"))
    expected = Reference(host, table="filter", chain="FORWARD").evaluate(packets)
    differences = masks.Masks(host).evaluate_chain(packets, "FORWARD").differences(expected)
    assert not differences, str(differences)


@pytest.mark.parametrize("rule", [
    "-A INPUT -m limit --limit 1/s -j DROP", "-A INPUT -j NFQUEUE", "-A INPUT -i eth+ -j DROP", "-A INPUT -f -j DROP",
    "-A INPUT -p tcp -m tcp --tcp-flags SYN SYN -j DROP"])
def test_masks_refuse_what_they_lack(rule: str) -> None:
    host = rulesets.host("docker28-seed")
    with pytest.raises(ValueError, match="no baseline"):
        masks.Masks(host.edit("iptables " + rule))


@pytest.mark.parametrize("style", classbench.STYLES)
@pytest.mark.parametrize("n", [1_000, 10_000])
def test_generated_rules_have_the_styles_figures(style: str, n: int) -> None:
    kind = classbench.STYLES[style]
    lo, hi = classbench.generate(style, n, seed=5)
    assert len(lo) == n == len(np.unique(np.concatenate([lo, hi], axis=1), axis=0))
    assert (lo <= hi).all()
    found = classbench.measure(lo, hi)
    for have, wanted in zip(found["distinct prefixes"], kind.distinct[n], strict=True):
        assert wanted / 1.3 < have < wanted * 1.3
    most = (kind.numbers[0] + 5 + 2, kind.numbers[1] + kind.numbers[2] + 2)
    assert all(have <= limit for have, limit in zip(found["distinct ports"], most, strict=True))


def test_generated_rules_are_read_back() -> None:
    lo, hi = classbench.generate("ipc", 200)
    host = Host(fp.parse_ruleset(classbench.save_text(lo, hi)), complete=False)
    rules = rulesets.flatten(host, "filter", "FORWARD")
    np.testing.assert_array_equal(rules.lo[:-1, :2], lo[:, :2])
    np.testing.assert_array_equal(rules.hi[:-1, :5], hi)


def test_rte_acl_finds_the_first_match() -> None:
    rules = rulesets.classifier_rules("fw_100")
    at = traces.headers(rules, 2_000, "edges")
    try:
        peer = rte.Classifier(rules)
    except rte.UnavailableError as error:
        pytest.skip(str(error))
    inside = ((at[:, None] >= rules.lo) & (at[:, None] <= rules.hi)).all(axis=2)
    for headers, expected in ((at, rules.rule[inside.argmax(axis=1)]), (at[:7], rules.rule[inside[:7].argmax(axis=1)])):
        peer.load(headers)
        assert peer.run("scalar", 32) > 0
        np.testing.assert_array_equal(peer.found(), expected)
    with pytest.raises(rte.UnavailableError, match="lacks"):
        peer.run("abacus")


ROWS = [
    Row("speed", "host", "mixed", "fastpath", 40.0, "M packets/s"),
    Row("speed", "host", "mixed", "fastpath, all columns", 30.0, "M packets/s"),
    Row("speed", "host", "mixed", "peer", 10.0, "M packets/s"),
    Row("speed", "host", "mixed", "fastpath / peer", 4.25, report.TIMES),
    Row("tables", "host", "9 rules", "fastpath", 2.0, "s to build"),
    Row("tables", "host", "9 rules", "peer", 5.0, "s to build"),
]


def test_report_has_measured_ratios_and_others_worked_out(tmp_path: Path) -> None:
    text = report.tables(ROWS)
    assert "| | | fastpath | fastpath, all columns | peer | times peer |".replace("| | |", "|  |  |") in text
    assert "| host | mixed | 40 | 30 | 10 | **4.25** |" in text
    assert "| host | 9 rules | 2 | 5 | **2.5** |" in text
    said = report.write(ROWS, ["a remark"], {"cores": 2}, tmp_path)
    assert "a remark" in (tmp_path / "results.md").read_text()
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == len(ROWS)
    if any("results.png" in line for line in said):
        assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")

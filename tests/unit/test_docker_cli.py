"""The words of ``fastpath docker``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastpath.cli.docker import app
from fastpath.docker import Topology, TopologyError
from fastpath.host.model import Host

ROOT = Path(__file__).resolve().parents[2]
SHOP = ROOT / "data" / "docker" / "shop.yaml"


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_rules_prints_what_the_engine_writes() -> None:
    printed = run("rules", "--from", SHOP, "--engine", "28.5", "--env", "HTTP_PORT=8088")
    assert printed == str(Topology.from_compose(SHOP, {"HTTP_PORT": "8088"}).host("28.5").ruleset)
    assert "--dport 8088 " in printed


def test_rules_of_one_table() -> None:
    printed = run("rules", "-f", ROOT / "data" / "docker" / "plan.yaml", "-e", "29", "-t", "raw")
    assert printed.startswith("*raw\n") and printed.count("COMMIT") == 1


def test_rules_of_a_capture_folder_with_other_settings(tmp_path: Path) -> None:
    daemon = tmp_path / "daemon.json"
    daemon.write_text('{"userland-proxy": false}')
    words = ("rules", "-f", ROOT / "data" / "hosts" / "docker28-seed", "-e", "28.5", "-t", "nat")
    assert "! -d 127.0.0.0/8" in run(*words)
    assert "! -d 127.0.0.0/8" not in run(*words, "--daemon", daemon)


def test_host_writes_a_folder_that_reads_back(tmp_path: Path) -> None:
    printed = run("host", "--from", SHOP, "--engine", "20.10", "--out", tmp_path / "shop")
    assert str(tmp_path / "shop") in printed
    assert Host.load(tmp_path / "shop").ruleset == Topology.from_compose(SHOP, {}).host("20.10").ruleset


def test_mistakes_are_topology_errors(tmp_path: Path) -> None:
    odd = tmp_path / "odd.yaml"
    odd.write_text("a: 1")
    for words, message in (
        (("rules", "-f", odd, "-e", "28"), "neither services"),
        (("rules", "-f", SHOP, "-e", "99"), "engine '99'"),
    ):
        with pytest.raises(TopologyError, match=message):
            run(*words)

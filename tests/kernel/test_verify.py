"""``fastpath verify``: what it prints, what it keeps, and how it exits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastpath.analysis.case import load_cases
from fastpath.cli import verify as command
from fastpath.cli.app import app
from fastpath.host.model import Host
from fastpath.netns.compare import Evaluate
from fastpath.reference import evaluate
from fastpath.ruleset.parse import parse_ruleset
from tests.kernel.conftest import require

pytestmark = pytest.mark.kernel
HOST = Path(__file__).parents[2] / "data" / "hosts" / "docker28-seed"


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_agreement(engine: str, tmp_path: Path) -> None:
    require("nft")
    require("legacy")
    done = CliRunner().invoke(app, ["verify", "--host", str(HOST), "-n", "400", "--engine", engine,
                                    "--cases", str(tmp_path / "cases")])
    assert done.exit_code == 0, done.output
    assert [int(n) for n in re.findall(r"(\d+) disagreements", done.output)] == [0, 0]
    assert all(390 <= int(n) <= 400 for n in re.findall(r"(\d+) packets compared", done.output))
    assert "Agreement with the kernel, nft" in done.output
    assert re.search(r"FORWARD +POSTROUTING +\d+ +\d+ +0", done.output)
    assert not (tmp_path / "cases").exists()


def test_disagreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that takes Docker's default DROP for docker0 for an ACCEPT is caught, and shown, and kept."""
    require("nft")

    def wrong(here: Host) -> Evaluate:
        text = str(here.ruleset).replace("! -i docker0 -o docker0 -j DROP", "! -i docker0 -o docker0 -j ACCEPT")
        return lambda packets: evaluate(here.with_ruleset(parse_ruleset(text)), packets)

    monkeypatch.setattr(command, "_engine_of", lambda engine: wrong)
    done = CliRunner().invoke(app, ["verify", "--host", str(HOST), "-n", "400", "--backend", "nft",
                                    "--cases", str(tmp_path / "cases")])
    assert done.exit_code == 1, done.output
    assert "kernel, nft" in done.output
    assert "legacy" not in done.output
    assert int(re.findall(r"(\d+) disagreements", done.output)[0]) > 0
    (path,) = (tmp_path / "cases").glob("*.toml")
    (case,) = load_cases(path)
    assert case.expected[0].values["verdict"] == "DROP"
    assert sum(len(chain.rules) for table in case.host.ruleset.tables for chain in table.chains) <= 5
    assert case.mismatches(evaluate(case.host, case.packets)) == []
    assert case.mismatches(wrong(case.host)(case.packets)) != []


@pytest.mark.parametrize("arguments", [[], ["--host", "/nowhere"], ["--host", str(HOST), "-n", "none"]])
def test_bad_calls(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["verify", *arguments])
    assert done.exit_code != 0

"""What is printed here is what iptables-restore accepts and iptables-save then prints, on the running kernel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from fastpath.ruleset.load import load_ruleset
from fastpath.ruleset.model import Ruleset
from fastpath.ruleset.parse import parse_ruleset

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[2]


def golden() -> ModuleType:
    path = ROOT / "tests" / "golden" / "test_captures_roundtrip.py"
    spec = importlib.util.spec_from_file_location("captures_roundtrip", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOLDEN = golden()


def restore_and_save(text: str, family: int, backend: str) -> str:
    """What iptables-save prints after iptables-restore, in a network namespace of its own."""
    program = f"{'ip6tables' if family == 6 else 'iptables'}-{backend}"
    missing = [p for p in ("unshare", f"{program}-restore") if shutil.which(p) is None]
    if missing or os.geteuid() != 0:
        if os.environ.get("FASTPATH_REQUIRE_KERNEL"):
            pytest.fail(f"the kernel cannot be asked here: {missing or 'not root'}")
        pytest.skip(f"the kernel cannot be asked here: {missing or 'not root'}")
    script = f"{program}-restore --counters && {program}-save"
    run = subprocess.run(["unshare", "-n", "sh", "-c", script], input=text, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def by_chain(rules: Ruleset, table: str) -> dict[str, list[str]]:
    found = rules.table(table)
    return {c.name: [str(r) for r in c.rules] for c in found.chains} if found else {}


@pytest.mark.parametrize("path", GOLDEN.SAVED, ids=lambda p: f"{p.parent.name}-{p.name.split('-')[0]}")
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_captures_restore(path: Path, backend: str) -> None:
    family = 6 if path.name.startswith("ip6") else 4
    rules = load_ruleset(path, family=family)
    saved = parse_ruleset(restore_and_save(str(rules), family, backend), family=family)
    for table in rules.tables:
        again = saved.table(table.name)
        assert again is not None
        assert {c.name: c for c in table.chains}.items() <= {c.name: c for c in again.chains}.items()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("table", ["raw", "mangle", "nat", "filter", "security"])
def test_rules_come_back_as_printed(family: int, table: str) -> None:
    """Every rule of the golden file that iptables took, all of a table's in one file."""
    entries = (e for e in GOLDEN.ENTRIES if e[3] and e[:2] == (family, table))
    given = [rule for _, _, rule, _ in entries if not rule.startswith("-A U1")]  # other rules jump there
    rules = parse_ruleset(GOLDEN.save_file(table, "\n".join(given)), family=family)
    printed = str(rules)
    saved = parse_ruleset(restore_and_save(printed, family, "nft"), family=family)
    back = by_chain(saved, table)
    for chain, lines in by_chain(rules, table).items():
        assert back[chain] == lines

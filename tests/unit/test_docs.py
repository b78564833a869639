"""The documents keep their word: examples run, links and named paths exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "bench/README.md"]


def blocks(language: str) -> list[str]:
    """The README's code blocks in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"},
    )


def test_python_example_runs():
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1000000 packets") == 2
    assert "verdict  DROP at" in done.stdout


@pytest.mark.parametrize("command", [line[2:] for block in blocks("console") for line in block.splitlines()
                                     if line.startswith("$ ")])
def test_shell_example_runs_and_prints_what_the_readme_shows(command):
    words = shlex.split(command)
    assert words[0] == "fastpath"
    done = run("-m", "fastpath", *words[1:])
    assert done.returncode == 0, done.stderr
    (block,) = [b for b in blocks("console") if command in b]
    shown = [line.rstrip() for line in block.split(command, 1)[1].strip("\n").splitlines()]
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line for line in shown if line != "..."] == [line for line in printed if line in shown and line != "..."]


def test_csv_example_is_read(tmp_path):
    from fastpath.packets import PacketBatch

    (text,) = blocks("csv")
    path = tmp_path / "packets.csv"
    path.write_text(text)
    packets = PacketBatch.read_csv(path)
    assert len(packets) == len(text.splitlines()) - 1
    assert packets[0].dport == 6380


def test_the_two_commands_stand_where_ci_reads_them():
    for name in ("ci: run", "ci: test"):
        assert re.search(rf"^<!-- {name} -->\n```sh\npip install \S+ && \S+.*\n```$", README, flags=re.MULTILINE), name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    document = ROOT / name
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_paths_exist(name):
    text = (ROOT / name).read_text()
    paths = re.findall(r"`((?:fastpath|tests|bench|data|\.ci)/[\w./-]*)`", text)
    paths += re.findall(r"`((?:ruleset|host|packets|reference|compiler|kernels|analysis|netns|cli)/[\w./-]*)`", text)
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "fastpath" / path).exists(), path


def test_the_map_names_files_that_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tree = re.search(r"```\nfastpath/\n(.*?)```", text, flags=re.DOTALL)
    assert tree
    folder, seen = "", 0
    for line in tree[1].splitlines():
        if not line.startswith(" "):
            break
        if room := re.match(r"  (\w+/)", line):
            folder = room[1]
            assert (ROOT / "fastpath" / folder).is_dir(), folder
        elif line.startswith("    "):
            for name in re.findall(r"(?:^|\s)(\w+\.py)\b", line):
                assert (ROOT / "fastpath" / folder / name).is_file(), folder + name
                seen += 1
    assert seen > 10

"""The documents keep their word: examples run, links and named paths exist."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
GUIDES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "bench/README.md", *GUIDES]


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks in `language`, the README's unless another document's text is given."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


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
    assert done.stdout.startswith("1000000 packets\n")
    assert "verdict  DROP at" in done.stdout
    assert "regions of packets differ in verdict" in done.stdout


def commands() -> list[tuple[str, str, list[str]]]:
    """Every shell example: document, command, and the lines that it shows."""
    found = []
    for document in ["README.md", *GUIDES]:
        for block in blocks("console", (ROOT / document).read_text()):
            for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, shown = example.replace("\\\n", " ").partition("\n")
                found.append((document, command, [line.rstrip() for line in shown.strip("\n").splitlines()]))
    return found


@pytest.mark.parametrize(("document", "command", "shown"), commands())
def test_shell_example_runs_and_prints_what_is_shown(document, command, shown):
    words = shlex.split(command)
    assert words[0] == "fastpath"
    done = run("-m", "fastpath", *words[1:])
    assert done.stdout.strip(), done.stderr
    assert "Traceback" not in done.stderr
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    if "..." not in shown:
        assert shown == printed
    wanted = [line for line in shown if line != "..."]
    at = 0
    for line in wanted:
        assert line in printed[at:], f"{line!r} is not printed, or not in this order"
        at = printed.index(line, at) + 1


@pytest.mark.parametrize("document", GUIDES)
def test_python_examples_of_a_guide_print_what_is_shown(document, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = "\n".join(blocks("python", (ROOT / document).read_text()))
    assert code.lstrip().startswith(">>>") or not code.strip(), "examples of guides are written with >>>"
    test = doctest.DocTestParser().get_doctest(code, {}, document, document, 0)
    failures: list[str] = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=options).run(test, out=failures.append)
    assert not failures, "".join(failures)


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

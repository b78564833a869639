"""Files that are missing, binary or not rules give errors of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.errors import FastpathError, ParseError
from fastpath.ruleset.load import load_ruleset

RULES = '*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment "café" -j DROP\nCOMMIT\n'


def test_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text(RULES, encoding="utf-8")
    rules = load_ruleset(path)
    assert rules.source == str(path)
    assert str(rules) == RULES
    path.write_bytes(b"\xef\xbb\xbf" + RULES.replace("\n", "\r\n").encode())
    assert load_ruleset(str(path)) == rules


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FastpathError, match=r"nothing.*No such file"):
        load_ruleset(tmp_path / "nothing")
    with pytest.raises(FastpathError, match="directory"):
        load_ruleset(tmp_path)
    with pytest.raises(FastpathError, match="cannot be read"):
        load_ruleset("a\0b")


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        (b"*filter\n:INPUT \xff\xfe\n", "byte 0xff is not UTF-8", 2),
        (b"*filter\n\0\0\0\nCOMMIT\n", "zero byte", 2),
        (b"\x1f\x8b\x08\x00", "gzip", 0),
    ],
)
def test_what_is_not_text(tmp_path: Path, content: bytes, message: str, line: int) -> None:
    path = tmp_path / "rules"
    path.write_bytes(content)
    with pytest.raises(ParseError) as caught:
        load_ruleset(path)
    assert message in caught.value.message
    assert (caught.value.line, caught.value.source) == (line, str(path))

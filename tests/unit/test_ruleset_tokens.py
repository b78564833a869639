"""The two word grammars: iptables-restore's and a shell's."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.errors import ParseError
from fastpath.ruleset.printer import quote
from fastpath.ruleset.tokens import save_texts, save_words, shell_words


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("", []),
        ("  -A\tINPUT ", ["-A", "INPUT"]),
        ('--comment "two words" -j X', ["--comment", "two words", "-j", "X"]),
        (r'"a \"quoted\" \\ it\'s"', ['a "quoted" \\ it\'s']),
        (r'"a\nb"', ["anb"]),
        ("'foo bar'", ["'foo", "bar'"]),
        ("foo\\ bar", ["foo\\", "bar"]),
        ('foo"bar baz"qux ""', ["foobar bazqux", ""]),
    ],
)
def test_save_words(line: str, texts: list[str]) -> None:
    assert save_texts(line) == texts
    assert [w.text for w in save_words(line)] == texts


def test_save_words_know_their_columns() -> None:
    words = save_words('-m comment --comment "a b" -j X')
    assert [(w.start, w.end) for w in words] == [(0, 2), (3, 10), (11, 20), (21, 26), (27, 29), (30, 31)]


@pytest.mark.parametrize("line", ['"', 'a "b', 'a b"c', '"a\\"', '"a" "b'])
def test_unclosed_quote_is_an_error(line: str) -> None:
    with pytest.raises(ParseError, match="not closed"):
        save_words(line)
    with pytest.raises(ParseError, match="not closed"):
        shell_words(line)


def test_unclosed_quote_is_marked() -> None:
    with pytest.raises(ParseError) as caught:
        save_words('-A INPUT "x', source="f", number=3)
    assert str(caught.value).splitlines()[1:] == ['    -A INPUT "x', "             ~^"]


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("sudo iptables -A INPUT  # why", ["sudo", "iptables", "-A", "INPUT"]),
        ("a#b", ["a#b"]),
        ("'it is' \"$x \\\" \\n\" a\\ b ''", ["it is", '$x " \\n', "a b", ""]),
    ],
)
def test_shell_words(line: str, texts: list[str]) -> None:
    assert [w.text for w in shell_words(line)] == texts


@given(st.text(alphabet=" ab'\"\\#\t$`", max_size=12))
def test_shell_words_agree_with_the_shells_grammar(line: str) -> None:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.whitespace = " \t"
    lexer.commenters = ""
    try:
        expected: list[str] | None = list(lexer)
    except ValueError:
        expected = None
    if "#" in line or "$" in line or "`" in line:  # shlex knows neither of their rules
        return
    if expected is None:
        with pytest.raises(ParseError):
            shell_words(line)
    else:
        assert [w.text for w in shell_words(line)] == expected


@given(st.lists(st.text(alphabet="ab-_ '\"\\\t!é", max_size=8)), st.sampled_from(["plain", "auto", "always"]))
def test_quoted_words_read_back(texts: list[str], quoting: str) -> None:
    line = " ".join(quote(t, quoting) for t in texts)  # type: ignore[arg-type]
    assert save_texts(line) == texts

"""How option texts become values that the API has no reader for: counts such as ``10M``, assumptions, ICMP types."""

from __future__ import annotations

import math

import typer

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9}

_ASSUMPTIONS = ("match", "no-match", "column:NAME")


def parse_count(text: str | int) -> int:
    """A number of things: ``250000``, ``250_000``, ``250k``, ``10M``, ``1.5M`` or ``1e6``.

    Raises:
        typer.BadParameter: not a whole number above zero.
    """
    if isinstance(text, int):
        return text
    word = text.strip().lower()
    factor = _SUFFIXES.get(word[-1:], 1)
    try:
        number = float(word[:-1] if factor > 1 else word) * factor
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 1 or number != int(number):
        raise typer.BadParameter(f"{text!r} is not a count; give a whole number such as 250000, 200k, 10M or 1e6")
    return int(number)


def parse_assumptions(texts: list[str]) -> dict[str | int, str] | None:
    """``limit=match`` or ``57=no-match`` or ``owner=column:NAME`` as the engine's ``assume`` mapping.

    Returns:
        Module names and rule ids with what to assume, or None where nothing is assumed.

    Raises:
        typer.BadParameter: not of that form.
    """
    result: dict[str | int, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        named = value.startswith("column:") and len(value) > len("column:")
        if not key or not equals or not (named or value in _ASSUMPTIONS[:2]):
            raise typer.BadParameter(
                f"{text!r} is not an assumption; give MODULE=WHAT or RULE-ID=WHAT, with WHAT one of "
                + ", ".join(_ASSUMPTIONS),
                param_hint="--assume",
            )
        result[int(key) if key.isdigit() else key] = value
    return result or None


def parse_icmp_type(text: str) -> tuple[str, str]:
    """An ICMP type and code, still as text: ``8``, ``3/1``, ``echo-request`` or ``host-unreachable``."""
    from fastpath.ruleset.names import ICMP_TYPES

    word = text.strip().lower()
    if word in ICMP_TYPES and word != "any":
        kind, code, _last = ICMP_TYPES[word]
        return str(kind), str(code)
    first, _, second = word.partition("/")
    return first, second or "0"


def parse_words(text: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    """Words with commas between, each of those that are known.

    Raises:
        typer.BadParameter: another word, or none.
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    wrong = [word for word in words if word not in known]
    if wrong or not words:
        raise typer.BadParameter(f"{wrong[0] if wrong else text!r} is none of {', '.join(known)}", param_hint=option)
    return words

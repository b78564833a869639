"""Compose's interpolation of variables.

    text     = { plain | "$$" | "$" NAME | "${" NAME [ operator text ] "}" }
    operator = ":-" | "-"     the text where NAME is unset (with ":", also where it is empty)
             | ":?" | "?"     an error with the text where it is
             | ":+" | "+"     the text where NAME is set (with ":", and not empty), else nothing
    NAME     = letters, digits and "_", not starting with a digit

The text after an operator is interpolated itself, and only where it is used. A NAME that is unset and has no operator
is empty; the topology's notes name it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastpath.docker.errors import TopologyError
from fastpath.docker.yamlfile import Override

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OPERATOR = re.compile(r":?[-?+]")


def interpolate(value: Any, env: Mapping[str, str], where: str, unset: list[str]) -> Any:
    """`value` with every text in it interpolated; keys stay as they are.

    Args:
        value: what YAML gave: mappings, lists, texts, numbers.
        env: the variables.
        where: file and path for errors; a blank at its end says that a path starts there.
        unset: takes the names of variables that are unset and have no default.

    Raises:
        TopologyError: a ``${`` that cannot be read, or a required variable that is missing.
    """
    if isinstance(value, str):
        return expand(value, env, where, unset) if "$" in value else value
    if isinstance(value, dict):
        inside = where if where.endswith(" ") else f"{where}."
        return {key: interpolate(item, env, f"{inside}{key}", unset) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, env, f"{where}[{i}]", unset) for i, item in enumerate(value)]
    if isinstance(value, Override):
        return Override(interpolate(value.value, env, where, unset))
    return value


def expand(text: str, env: Mapping[str, str], where: str, unset: list[str]) -> str:
    """One text interpolated; see :func:`interpolate`.

    Raises:
        TopologyError: as there.
    """
    return _Expansion(text, env, where, unset).run(text)


class _Expansion:
    def __init__(self, text: str, env: Mapping[str, str], where: str, unset: list[str]) -> None:
        self.whole = text
        self.env = env
        self.where = where
        self.unset = unset

    def run(self, text: str) -> str:
        parts: list[str] = []
        place = 0
        while (dollar := text.find("$", place)) >= 0:
            parts.append(text[place:dollar])
            after = text[dollar + 1:dollar + 2]
            if after == "$":
                parts.append("$")
                place = dollar + 2
            elif after == "{":
                end = self._closing(text, dollar + 2)
                parts.append(self._braced(text[dollar + 2:end]))
                place = end + 1
            else:
                name = _NAME.match(text, dollar + 1)
                if name is None:
                    raise self._error("'$' should be followed by a name, or be written '$$'")
                parts.append(self._plain(name.group()))
                place = name.end()
        return "".join([*parts, text[place:]])

    def _closing(self, text: str, start: int) -> int:
        """Where the ``}`` of a ``${`` stands; those of nested ones are passed over."""
        depth, place = 1, start
        while place < len(text):
            if text.startswith("$$", place):
                place += 2
                continue
            if text.startswith("${", place):
                depth += 1
                place += 2
                continue
            if text[place] == "}":
                depth -= 1
                if depth == 0:
                    return place
            place += 1
        raise self._error("'${' is not closed by '}'")

    def _braced(self, inside: str) -> str:
        name = _NAME.match(inside)
        if name is None:
            raise self._error(f"'${{{inside}}}' should start with a variable's name")
        rest = inside[name.end():]
        if not rest:
            return self._plain(name.group())
        operator = _OPERATOR.match(rest)
        if operator is None:
            raise self._error(f"'${{{inside}}}': after {name.group()} come :- - :? ? :+ or +, not {rest[:2]!r}")
        word = rest[operator.end():]
        value = self.env.get(name.group())
        there = bool(value) if operator.group().startswith(":") else value is not None
        kind = operator.group()[-1]
        if kind == "+":
            return self.run(word) if there else ""
        if there:
            return value or ""
        if kind == "?":
            raise self._error(f"variable {name.group()} is required: {self.run(word) or 'it is not set'}")
        return self.run(word)

    def _plain(self, name: str) -> str:
        if name not in self.env:
            self.unset.append(name)
        return self.env.get(name, "")

    def _error(self, message: str) -> TopologyError:
        return TopologyError(f"{self.where}: {self.whole!r}: {message}")

"""Rulesets: what they are, and reading, checking, editing and printing them."""

from __future__ import annotations

from fastpath.ruleset.check import check_ruleset
from fastpath.ruleset.load import load_ruleset
from fastpath.ruleset.model import Chain, Match, Option, Rule, RuleRef, Ruleset, Table, Target
from fastpath.ruleset.parse import parse_ruleset
from fastpath.ruleset.printer import format_rule, format_ruleset
from fastpath.ruleset.script import load_script

__all__ = [
    "Chain",
    "Match",
    "Option",
    "Rule",
    "RuleRef",
    "Ruleset",
    "Table",
    "Target",
    "check_ruleset",
    "format_rule",
    "format_ruleset",
    "load_ruleset",
    "load_script",
    "parse_ruleset",
]

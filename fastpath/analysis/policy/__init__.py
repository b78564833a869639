"""Policies: files of statements about a host, checked like tests.

``read.py`` has the format of the files, ``run.py`` checks them against a host, ``junit.py`` writes the outcome as CI
systems read it.
"""

from fastpath.analysis.policy.junit import to_junit
from fastpath.analysis.policy.read import Policy, Statement, load_policy
from fastpath.analysis.policy.run import Outcome, PolicyReport, run_policy

__all__ = ["Outcome", "Policy", "PolicyReport", "Statement", "load_policy", "run_policy", "to_junit"]

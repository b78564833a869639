"""Fitting parameters to readings that are made up from known ones."""

from __future__ import annotations

import pytest

from fastpath.capacity.cpu.calibrate import mixed_weights, weights
from fastpath.capacity.cpu.fit import LINES, SWITCH, Observation, fit
from fastpath.capacity.cpu.patterns import MIXES, PACKET, PATTERNS, Pattern


@pytest.mark.parametrize("backend", ["legacy", "nft"])
def test_a_fit_finds_the_parameters_that_made_the_readings(backend: str) -> None:
    names = sorted({name for p in PATTERNS for name, _ in weights(p, backend)})
    kinds = {name: name.removeprefix("fail:").removeprefix("pass:") for name in names}
    truth = {name: 5.0 + len(kind) + ord(kind[-1]) % 17 for name, kind in kinds.items()} | {LINES: 0.5, SWITCH: 3.0}
    readings = [
        Observation(rule, w, sum(truth[n] * x for n, x in w), 0.1)
        for rule, w in [(p.rule, weights(p, backend)) for p in PATTERNS]
        + [(" ".join(mix), mixed_weights([Pattern(rule, PACKET) for rule in mix], backend)) for mix in MIXES]]
    found, said, quality = fit(readings)
    assert quality.worst_error < 0.02
    assert said == pytest.approx([r.ns for r in readings], rel=0.02)
    assert found[SWITCH] == pytest.approx(3.0, abs=0.5)
    assert found["fail:conntrack"] + found["rule"] == pytest.approx(truth["fail:conntrack"] + truth["rule"], rel=0.1)

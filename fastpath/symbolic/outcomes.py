"""Every way in which packets can end, whatever undecided rules do."""

from __future__ import annotations

from collections.abc import Iterator

from fastpath.symbolic.hostsets import Fate, HostSets


def outcomes(sets: HostSets) -> Iterator[tuple[Fate, int]]:
    """Every end that some outcome of undecided rules leads to, with the diagram of its headers.

    Headers whose fate is decided are in the sets of one end only, those of the others in several.
    """
    store = sets.space.store
    walked = sets._walked
    variables = [m.variable for m in walked.meetings.values()]
    accepted = {
        way: {rule: store.any_of(parts) for rule, parts in rules.items()} for way, rules in walked.accepted.items()
    }
    for place, here in sets._ends.items():
        if place.rule is not None:
            yield sets._fate(place, place.rule), store.some(here, variables)
            continue
        for rule, passed in accepted.get(place.way, {}).items():
            part = store.both(here, passed)
            if part:
                yield sets._fate(place, rule), store.some(part, variables)
                here = store.without(here, part)
        if here:
            yield sets._fate(place, -1), store.some(here, variables)

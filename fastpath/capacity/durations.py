"""How long connections last: distributions of seconds, as much of them as the formulas and simulations need.

A distribution is given as a number (always that long), or as a mapping:
``{"distribution": "exponential", "mean": 30}``.

=============  ======================  ==============================================================
distribution   parameters (seconds)
=============  ======================  ==============================================================
fixed          mean                    every connection lasts that long
exponential    mean
uniform        from, to
lognormal      mean, median            a few long ones among many short ones; mean > median
=============  ======================  ==============================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.errors import FastpathError

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "fixed": ("mean",), "exponential": ("mean",), "uniform": ("from", "to"), "lognormal": ("mean", "median"),
}


@dataclass(frozen=True, slots=True)
class Duration:
    """A distribution of seconds; build one with :meth:`read`.

    Attributes:
        distribution: fixed, exponential, uniform or lognormal.
        first, second: its parameters, in the order of the table above; ``second`` is 0 where there is one only.
    """

    distribution: str
    first: float
    second: float = 0.0

    @classmethod
    def read(cls, value: float | Mapping[str, Any] | Duration) -> Duration:
        """A duration from what a file or a caller gives.

        Raises:
            FastpathError: not a distribution; the message says what would be.
        """
        if isinstance(value, Duration):
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float, Mapping)):
            raise FastpathError(f"{value!r} is no duration; give seconds, or a mapping with distribution")
        if not isinstance(value, Mapping):
            value = {"distribution": "fixed", "mean": value}
        name = value.get("distribution")
        if name not in _PARAMETERS:
            raise FastpathError(f"there is no distribution {name!r}; there are {', '.join(_PARAMETERS)}")
        wanted = _PARAMETERS[name]
        if set(value) != {"distribution", *wanted}:
            raise FastpathError(f"distribution {name} takes {' and '.join(wanted)}, in seconds; "
                                f"given are {', '.join(k for k in value if k != 'distribution') or 'none'}")
        numbers = [value[key] for key in wanted]
        for key, number in zip(wanted, numbers, strict=True):
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < math.inf:
                raise FastpathError(f"{key} {number!r} should be a number of seconds, 0 or more")
        if name == "uniform" and numbers[1] < numbers[0]:
            raise FastpathError(f"uniform from {numbers[0]} to {numbers[1]}: to should not be less than from")
        if name == "lognormal" and not 0 < numbers[1] <= numbers[0]:
            raise FastpathError(f"lognormal with mean {numbers[0]} and median {numbers[1]}: "
                                "the median should be above 0 and not above the mean")
        return cls(name, *(float(number) for number in numbers))

    @property
    def mean(self) -> float:
        """Mean seconds."""
        return (self.first + self.second) / 2 if self.distribution == "uniform" else self.first

    def limited(self, t: float) -> float:
        """E[min(D, t)]: of each connection's first `t` seconds, how many it lives through, on average."""
        if t <= 0:
            return 0.0
        if self.distribution == "fixed" or self.mean == 0:
            return min(self.first, t)
        if self.distribution == "exponential":
            return self.first * -math.expm1(-t / self.first)
        if self.distribution == "uniform":
            low, high = self.first, self.second
            if t <= low:
                return t
            if t >= high:
                return (low + high) / 2
            return t - (t - low) ** 2 / (2 * (high - low))
        mu, sigma = self._lognormal()
        if sigma == 0:
            return min(self.first, t)
        z = (math.log(t) - mu) / sigma
        return self.first * _normal(z - sigma) + t * _normal(-z)

    def longer(self, t: float) -> float:
        """P(D > t)."""
        if t < 0:
            return 1.0
        if self.distribution == "fixed" or self.mean == 0:
            return float(self.first > t)
        if self.distribution == "exponential":
            return math.exp(-t / self.first)
        if self.distribution == "uniform":
            if self.first == self.second:
                return float(self.first > t)
            return min(1.0, max(0.0, (self.second - t) / (self.second - self.first)))
        mu, sigma = self._lognormal()
        if t == 0 or sigma == 0:
            return float(self.first > t)
        return _normal(-(math.log(t) - mu) / sigma)

    def draw(self, rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
        """`n` durations."""
        if self.distribution == "exponential":
            return rng.exponential(self.first, n)
        if self.distribution == "uniform":
            return rng.uniform(self.first, self.second, n)
        if self.distribution == "lognormal":
            return rng.lognormal(*self._lognormal(), n)
        return np.full(n, self.first)

    def to_dict(self) -> dict[str, Any]:
        """As :meth:`read` takes it."""
        numbers = (self.first, self.second)
        return {"distribution": self.distribution, **dict(zip(_PARAMETERS[self.distribution], numbers, strict=False))}

    def __str__(self) -> str:
        if self.distribution == "fixed":
            return f"{self.first:g} s"
        given = ", ".join(f"{key} {number:g} s" for key, number in list(self.to_dict().items())[1:])
        return f"{self.distribution}, {given}"

    def _lognormal(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm."""
        return math.log(self.second), math.sqrt(2 * math.log(self.first / self.second))


def _normal(z: float) -> float:
    """The normal distribution's cumulative probability."""
    return math.erfc(-z / math.sqrt(2)) / 2

"""What structures that would outgrow their limits say."""

from __future__ import annotations


class TooLargeError(Exception):
    """The structure would exceed its budget: another one is taken."""

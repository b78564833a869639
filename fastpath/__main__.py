"""``python -m fastpath`` is the ``fastpath`` command."""

from __future__ import annotations

import sys

from fastpath.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m streamq` is the command `streamq`."""

from __future__ import annotations

from streamq.cli.main import main

if __name__ == "__main__":
    main("python -m streamq")

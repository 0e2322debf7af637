"""Who a worker is: unique for every start, since a name that comes back could settle for the one before it."""

from __future__ import annotations

import os
import re
import secrets
import socket


def worker_id() -> str:
    """Host, process and a few random characters: `web-1-4711-3f9a1c`."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())[:64] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"

"""Arguments that are annotated `Secret[...]`, and jobs that are signed and encoded, as the command line shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamq import StreamQ
from tests.cli.keyboard import Keyboard

KEYS = [("2026-11", b"a secret of 20 bytes")]
VAULT = f"""
from streamq import Secret, StreamQ

class Mirror:
    def encode(self, data):
        return data[::-1]
    decode = encode

app = StreamQ(codec=Mirror(), signing_keys={KEYS})

@app.task(name="login")
async def login(user: str, token: Secret[str]) -> str:
    return token
"""


class Mirror:
    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    decode = encode


@pytest.fixture
def typed(
    url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Keyboard:
    return Keyboard(url, namespace, tmp_path, monkeypatch, capsys)


def test_secret_arguments_are_not_shown(typed: Keyboard) -> None:
    Path("vault.py").write_text(VAULT)

    async def seed(_: StreamQ[Any]) -> None:
        async with StreamQ(typed.url, namespace=typed.namespace, codec=Mirror(), signing_keys=KEYS) as app:
            await app.send_task("login", ("ann",), {"token": "hunter2"}, job_id="mine")

    typed.meanwhile(seed)
    shown = typed("jobs", "show", "mine", "--args", "--json", "--app", "vault:app")
    assert (shown.json["args"], shown.json["kwargs"]) == (["ann"], {"token": "***"})
    assert "hunter2" not in shown.out + typed("jobs", "show", "mine", "--args", "--app", "vault:app").out
    blind = typed("jobs", "show", "mine", "--args", "--json", "--url", typed.url)
    assert "has none: StreamQ(codec=...)" in blind.json["arguments"]

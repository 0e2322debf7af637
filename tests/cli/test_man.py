"""`streamq man`: a page for every command, and text that roff does not take for its own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from streamq.cli.commands.man import escaped, pages
from streamq.cli.main import HOMES, streamq

from .conftest import Start

REQUESTS = {".TH", ".SH", ".TP", ".PP", ".B", ".BR", ".nf", ".fi"}
ESCAPES = re.compile(r"\\(?:e|-|&|f[BR]|\((?:aq|ga|ha|ti)|\[u[0-9A-F]{4,6}\])")


def test_every_command_has_a_page(start: Start, tmp_path: Path) -> None:
    process = start("man", "pages")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    names = {each.name for each in (tmp_path / "pages").iterdir()}
    assert err == f"{len(names)} pages in pages; to read one: man -l pages/streamq.1\n"
    assert {"streamq.1", "streamq-schedule-pause.1", *(f"streamq-{name}.1" for name in HOMES)} <= names
    page = (tmp_path / "pages" / "streamq-worker.1").read_text()
    assert page.startswith('.TH "STREAMQ\\-WORKER" "1"')
    assert ".SH NAME\nstreamq\\-worker \\- Run the jobs of an application" in page
    assert "\\fB\\-c,\\fR \\fB\\-\\-concurrency\\fR" in page
    assert "STREAMQ_CONCURRENCY" in page


def test_every_option_is_on_its_page() -> None:
    found = dict(pages())
    for name in HOMES:
        command = streamq.get_command(click.Context(streamq), name)
        assert command is not None
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert all(escaped(spelling) in found[f"streamq-{name}.1"] for spelling in param.opts)


def test_a_page_holds_nothing_but_our_requests_and_escapes() -> None:
    for name, page in pages():
        for line in page.splitlines():
            if line.startswith("."):
                assert line.split(" ")[0] in REQUESTS, (name, line)
            assert "\\" not in ESCAPES.sub("", line), (name, line)
            assert line.isascii()
            assert not line.startswith("'")
            assert "\b" not in line


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        (".so /etc/passwd", "\\&.so /etc/passwd"),
        ("'quoted'", "\\(aqquoted\\(aq"),
        ("a \\n b", "a \\en b"),
        ("--wait", "\\-\\-wait"),
        ("`x` ~ ^", "\\(gax\\(ga \\(ti \\(ha"),
        ("5 µs …", "5 \\[u00B5]s \\[u2026]"),
    ],
)
def test_text_is_escaped(text: str, roff: str) -> None:
    assert escaped(text) == roff


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_groff_has_nothing_to_say() -> None:
    for name, page in pages():
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z"], input=page, capture_output=True, text=True, timeout=20
        )
        assert (done.returncode, done.stderr) == (0, ""), name

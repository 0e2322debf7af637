"""The documentation is true: its code compiles, its scripts print what they show, its commands and links exist.

A rule is a function from pages to findings, in `pages` and `command_lines`; each has a planted mistake below, so that
no rule is one that cannot fail.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypedDict

import pytest

from streamq import StreamQ
from tests.docs.command_lines import refused
from tests.docs.pages import (
    DOCS,
    ROOT,
    Block,
    Page,
    broken_links,
    listed,
    slug,
    uncompilable,
    unknown_names,
    unreadable,
)

sys.path.insert(0, str(DOCS / "_ext"))

import streamq_docs
from streamq_docs import api, commands, errors, markdown, settings


def read(path: Path) -> Page:
    return Page(path.relative_to(ROOT).as_posix(), streamq_docs.filled(path.read_text(encoding="utf-8")).text)


PAGES = {page.name: page for page in map(read, [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))])}
WRITTEN = {name: page for name, page in PAGES.items() if name == "README.md" or name.startswith("docs/")}
SCRIPTS = [block for name, page in WRITTEN.items() if name != "README.md" for block in page.blocks if block.runs]

Rule = Callable[[Page], Iterable[str]]
RULES: tuple[Rule, ...] = (uncompilable, unknown_names, unreadable, refused)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("page", WRITTEN.values(), ids=lambda page: page.name)
def test_a_page_is_in_order(page: Page, rule: Rule) -> None:
    assert list(rule(page)) == []


def run(block: Block, folder: Path) -> tuple[int, str, str]:
    """As a user runs it, in a process of its own and with warnings as errors."""
    script = folder / block.file
    script.write_text(block.text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        env={**kept, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: f"{block.page}-{block.file}")
def test_a_script_prints_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    assert block.prints is not None, f"{block.place}: a text block with its output must follow"
    assert run(block, tmp_path) == (0, block.prints, "")


def test_links_lead_somewhere() -> None:
    assert list(broken_links(PAGES)) == []


def test_every_page_is_in_the_table_of_contents() -> None:
    assert listed(PAGES["docs/index.md"]) == {path.stem for path in DOCS.glob("*.md")} - {"index"}


@pytest.mark.parametrize("name", streamq_docs.GENERATORS)
def test_what_is_generated_is_complete(name: str) -> None:
    text, problems = streamq_docs.GENERATORS[name]()
    assert problems == []
    assert text


def test_every_generated_part_has_its_place() -> None:
    places = re.findall(streamq_docs.PLACE, "\n".join(path.read_text() for path in DOCS.glob("*.md")))
    assert sorted(places) == sorted(streamq_docs.GENERATORS)


def test_the_promises_are_those_of_the_readme() -> None:
    words = " ".join(PAGES["README.md"].text.partition("## The promises")[2].partition("## Read on")[0].split())
    promises = [f"* **{each}" for each in words.partition(" Not promised:")[0].split("* **")[1:]]
    assert len(promises) == 5
    guarantees = " ".join(PAGES["docs/guarantees.md"].text.split())
    assert [each for each in promises if each.strip() not in guarantees] == []


def test_what_stands_beside_the_settings_is_described() -> None:
    taken = inspect.signature(StreamQ.__init__).parameters.values()
    names = {each.name for each in taken if each.name != "self" and each.kind is not each.VAR_KEYWORD}
    table = PAGES["docs/configuration.md"].text.partition("## Of an application")[2].partition("And these")[0]
    assert set(re.findall(r"^\| `(\w+)` ", table, re.MULTILINE)) == names


# ---- planted mistakes --------------------------------------------------------------------------------------


def planted(language: str, text: str) -> Page:
    return Page("docs/planted.md", f"# A heading\n\n```{language}\n{text}\n```\n")


@pytest.mark.parametrize(
    ("rule", "page", "finding"),
    [
        (uncompilable, planted("python", "await add.enqueue(2,\n"), "never closed"),
        (unknown_names, planted("python", "from streamq import StreamQueue"), "streamq has no StreamQueue"),
        (unknown_names, planted("python", "@app.task(max_retires=3)\nasync def f(): ..."), "takes no max_retires"),
        (unknown_names, planted("python", "add.using(countdwon=3)"), r"using\(...\) takes no countdwon"),
        (unknown_names, planted("python", "app = StreamQ(leese='3s')"), "takes no leese"),
        (unreadable, planted("toml", "[worker\n"), "planted.md:3"),
        (unreadable, planted("json", "{'a': 1}"), "planted.md:3"),
        (unreadable, planted("yaml", "a: b: c"), "planted.md:3"),
        (refused, planted("console", "$ streamq wroker shop:app"), "no command 'wroker'"),
        (refused, planted("console", "$ streamq worker shop:app --concurency 3"), "--concurency"),
        (refused, planted("sh", "STREAMQ_APP=shop:app streamq worker -c many && echo done"), "'many' is not a valid"),
        (refused, planted("sh", "cd shop; .venv/bin/streamq worker \\\n  shop:app one_more"), "one_more"),
        (refused, Page("docs/planted.md", "Type `streamq worker --quues mail`."), "No such option '--quues'"),
    ],
)
def test_a_planted_mistake_is_found(rule: Rule, page: Page, finding: str) -> None:
    (found,) = rule(page)
    assert re.search(finding, found)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[x](nowhere.md)", "nowhere.md is no file"),
        ("[x](../NOWHERE.md)", "is no file"),
        ("[x](../examples)", "is no file"),
        ("[x](planted.md#no-such)", "there is no such heading"),
        ("[x](#no-such)", "there is no such heading"),
    ],
)
def test_a_planted_link_is_found(text: str, finding: str) -> None:
    here = Page("docs/index.md", f"# One, two: `three`\n\n{text.replace('planted.md', 'index.md')}\n")
    assert [finding in found for found in broken_links({here.name: here})] == [True]
    assert list(broken_links({here.name: Page("docs/index.md", "# A b\n[x](#a-b) `[y](z.md)`")})) == []


def test_a_script_that_prints_something_else_is_found(tmp_path: Path) -> None:
    text = '# three.py\nif __name__ == "__main__":\n    print(__file__[-8:], 1 + 2)  # "embedded://"\n'
    page = Page("docs/p.md", f"```python\n{text}```\n\nIt prints\n\n```text\nthree.py 4\n```\n")
    block = page.blocks[0]
    assert (block.runs, block.prints) == (True, "three.py 4\n")
    assert run(block, tmp_path) == (0, "three.py 3\n", "")
    apart = Page("docs/p.md", f"```python\n{text}```\n\n## Else\n\n```text\nthree.py 4\n```\n")
    assert apart.blocks[0].prints is None


class Planted(TypedDict, total=False):
    """What can be set.

    here: it is described (7)
    gone: it is described and does not exist
    """

    here: int
    silent: int


def test_settings_that_are_not_described_are_found() -> None:
    _, problems = settings._table(Planted, {"here": 7, "silent": 1}, frozenset())
    assert [problem.partition("Planted")[2] for problem in problems] == [
        ".silent has no description in the docstring",
        ": 'gone' is described and does not exist",
    ]
    _, problems = settings._table(Planted, {"here": 8}, frozenset())
    assert "its docstring says 7, the code {'here': '8'}" in problems[-1]


def test_a_command_whose_module_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(commands.HOMES, "init", "streamq.cli.commands.nowhere:init")
    text, problems = commands.reference()
    assert "streamq init: streamq.cli.commands.nowhere:init cannot be imported" in problems[0]
    assert "### streamq worker" in text


def test_an_error_without_advice_is_found() -> None:
    page = errors.ADVICE.read_text(encoding="utf-8")
    _, problems = errors.reference(page.replace("## QueueFull", "## QueueFool"))
    assert problems == [
        "QueueFool: advice for an error that does not exist",
        "QueueFull: advice.md does not say what to do",
    ]


def test_a_public_name_that_is_in_no_group_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(api.GROUPS, "Jobs", "Job State Nothing")
    _, problems = api.reference()
    assert "streamq.gather is in no group of docs/_ext/streamq_docs/api.py" in problems
    assert "streamq.Nothing is shown and not public" in problems


def test_a_place_that_nothing_fills_is_found() -> None:
    page = streamq_docs.filled("# A\n\n<!-- generated: wishes -->\n")
    assert page.problems == [f"nothing generates 'wishes'; there are {', '.join(streamq_docs.GENERATORS)}"]


def test_markdown_of_a_docstring() -> None:
    docstring = "What *args are.\n\n    add(1)        # 2\n\nThen:\n\n@app.task\ndef f(): ...\n\nRaises `X`."
    assert markdown.prose(docstring) == (
        "What \\*args are.\n\n```python\nadd(1)        # 2\n```\n\nThen:\n\n"
        "```python\n@app.task\ndef f(): ...\n```\n\nRaises `X`."
    )
    assert markdown.table(["a"], [["b|c"]]) == "| a |\n| --- |\n| b\\|c |"
    assert (markdown.duration(90), markdown.duration(0.25)) == ("90 s", "250 ms")
    assert slug("Of a `task`: -p") == "of-a-task--p"

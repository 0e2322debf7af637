"""The pages as data: their blocks, headings and links, and what is wrong with them."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

import streamq
from streamq import AppSettings, CallSettings, StreamQ, TaskSettings

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"

_FENCE: Final = re.compile(r"^( *)(`{3,}|~{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\]\(([^()\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,4} (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `prints` is the text block that follows it, if one does."""

    page: str
    line: int
    language: str
    text: str
    prints: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """A script with a server of its own is run as it stands."""
        return self.language == "python" and '__name__ == "__main__"' in self.text and '"embedded://"' in self.text

    @property
    def file(self) -> str:
        """What its first line calls it: the module is a part of its tasks' names."""
        first = re.match(r"# (\w+\.py)\n", self.text)
        return first[1] if first else "script.py"


@dataclass(frozen=True)
class Page:
    """One Markdown file; `name` is its path from the root of the project."""

    name: str
    text: str

    @property
    def folder(self) -> Path:
        return (ROOT / self.name).parent

    @property
    def blocks(self) -> list[Block]:
        fences = list(_FENCE.finditer(self.text))
        found: list[Block] = []
        for fence, following in zip(fences, [*fences, None][1:], strict=True):
            margin = len(fence[1])
            text = "".join(line[margin:] for line in fence[4].splitlines(keepends=True))
            answer = following[4] if following is not None and following[3].strip() == "text" else None
            # A paragraph may stand between a script and what it prints, a heading may not.
            between = self.text[fence.end() : following.start()] if following is not None else ""
            prints = None if "\n#" in between or between.strip().count("\n\n") else answer
            line = self.text.count("\n", 0, fence.start()) + 1
            found.append(Block(self.name, line, fence[3].strip(), text, prints))
        return found

    @property
    def prose(self) -> str:
        """The page without its blocks."""
        return _FENCE.sub("", self.text)

    @property
    def anchors(self) -> set[str]:
        """What its headings are called in a link, as GitHub and MyST make it."""
        return {slug(heading) for heading in _HEADING.findall(self.prose)}


def slug(heading: str) -> str:
    """
    >>> slug("The `streamq` command, in short: -p")
    'the-streamq-command-in-short--p'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# ---- code ------------------------------------------------------------------------------------------------


def uncompilable(page: Page) -> Iterator[str]:
    """Python that is none."""
    for block in page.blocks:
        if block.language == "python":
            try:
                compile(block.text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            except SyntaxError as error:
                yield f"{block.place}: {error.msg}, line {error.lineno} of the block"


def _parameters(of: Callable[..., object]) -> set[str]:
    return {name for name, each in inspect.signature(of).parameters.items() if each.kind is not each.VAR_KEYWORD}


def _keys(kind: Any) -> set[str]:
    return {*kind.__required_keys__, *kind.__optional_keys__}


KEYWORDS: Final[dict[str, set[str]]] = {
    "task": _keys(TaskSettings),
    "shared_task": _keys(TaskSettings),
    "using": _keys(CallSettings),
    "apply_async": _keys(CallSettings) | {"args", "kwargs"},
    "send_task": _keys(CallSettings) | {"args", "kwargs"},
    "cron": _keys(CallSettings) | _parameters(StreamQ.cron),
    "every": _keys(CallSettings) | _parameters(StreamQ.every),
    "worker": _parameters(StreamQ.worker),
    "StreamQ": _keys(AppSettings) | _parameters(StreamQ.__init__),
}


def unknown_names(page: Page) -> Iterator[str]:
    """What is imported from streamq and not there, and options that do not exist."""
    others = "/migrating" in page.name or page.name.endswith("/brokers.md")  # these show other people's code too
    for block in page.blocks:
        if block.language != "python" or (others and "streamq" not in block.text.lower()):
            continue
        try:
            tree = ast.parse(block.text)
        except SyntaxError:
            continue
        for each in ast.walk(tree):
            if isinstance(each, ast.ImportFrom) and each.module == "streamq":
                yield from (
                    f"{block.place}: streamq has no {alias.name}"
                    for alias in each.names
                    if alias.name not in streamq.__all__
                )
            if isinstance(each, ast.Call) and (known := KEYWORDS.get(_name(each.func))) is not None:
                yield from (
                    f"{block.place}: {_name(each.func)}(...) takes no {keyword.arg}"
                    for keyword in each.keywords
                    if keyword.arg is not None and keyword.arg not in known
                )


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


PARSERS: Final[dict[str, Callable[[str], object]]] = {
    "toml": tomllib.loads,
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines() if line.strip()],
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}


def unreadable(page: Page) -> Iterator[str]:
    """Configuration that its parser refuses."""
    for block in page.blocks:
        if block.language in PARSERS:
            try:
                PARSERS[block.language](block.text)
            except (ValueError, yaml.YAMLError) as error:
                yield f"{block.place}: {error}"


# ---- links -----------------------------------------------------------------------------------------------


def broken_links(pages: dict[str, Page]) -> Iterator[str]:
    """Links to files and headings that are not there. Addresses elsewhere are not asked."""
    for page in pages.values():
        for target in _LINK.findall(_SPAN.sub("", page.prose)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.folder / path).resolve() if path else ROOT / page.name
            # A page of the site can hand out a file, and no folder.
            if not (file.is_file() if page.name.startswith("docs/") else file.exists()):
                yield f"{page.name}: {target} is no file"
                continue
            other = pages.get(file.relative_to(ROOT).as_posix())
            if anchor and (other is None or anchor not in other.anchors):
                yield f"{page.name}: {target}: there is no such heading"


def listed(index: Page) -> set[str]:
    """The pages that the tables of contents name."""
    rows = [row for block in index.blocks if block.language == "{toctree}" for row in block.text.split("\n")]
    names = {row for row in rows if row and not row.startswith(":")}
    return {path.stem for name in names for path in [*DOCS.glob(f"{name}.md")] or [Path(name)]}

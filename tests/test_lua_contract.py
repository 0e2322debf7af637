"""Every Lua script begins with a contract; the script, the Python function and `CONTRACTS` keep the same one.

The contract::

    -- promote.lua: moves jobs that are due into their streams
    -- KEYS: due body streams*
    -- ARGV: now limit ids*
    -- returns: how many were moved

A name that ends in `*` means the rest. A line that begins with `--` and three blanks continues the one above.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BROKER = Path(__file__).parents[1] / "streamq" / "broker"
NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")
TOKEN = re.compile(
    r"--\[\[.*?\]\]|--[^\n]*"  # comments
    r"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|\[\[.*?\]\]",  # strings
    re.DOTALL,
)
BOUND = re.compile(r"^local\s+(\w+(?:\s*,\s*\w+)*)\s*=\s*((?:[^\n]*,\s*\n)*[^\n]*)", re.MULTILINE)
USE = re.compile(r"^-- @use (\S+)\s*$", re.MULTILINE)
BANNED = {"FUNCTION", "FCALL", "KEYS", "FLUSHALL", "FLUSHDB", "XTRIM", "MAXLEN", "MINID"}
# The stream of events is the one that may be capped: it holds news, never a job.
CAPPED_EVENTS = re.compile(
    r"redis\.p?call\(\s*'(?:XADD|XTRIM)'\s*,\s*(?:ev|events)\s*,\s*'(?:MAXLEN|MINID)'", re.IGNORECASE
)
DECODES = re.compile(r"\b(?:cjson\.decode|cmsgpack\.unpack\w*)\s*\([^)]*?(?:bod(?:y|ies)|records?)\w*", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    name: str
    keys: tuple[str, ...]
    argv: tuple[str, ...]

    @property
    def parameters(self) -> list[str]:
        return [name.removesuffix("*") for name in (*self.keys, *self.argv)]


def code_of(text: str, *, strings: bool) -> str:
    """The Lua code without its comments, and without its strings when only names matter."""

    def kept(token: re.Match[str]) -> str:
        return "" if token[0].startswith("--") else token[0] if strings else "''"

    return TOKEN.sub(kept, text)


def header_of(text: str, stem: str) -> Header | str:
    """The contract at the top, or what is wrong with it."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("--") or line.startswith("-- @use"):
            break
        if line.startswith("--   ") and lines:
            lines[-1] += " " + line[2:].strip()
        else:
            lines.append(line)
    starts = (f"-- {stem}.lua: ", "-- KEYS:", "-- ARGV:", "-- returns: ")
    for line, start in zip([*lines, "", "", "", ""], starts, strict=False):
        if not line.startswith(start):
            return f"the contract lacks a line `{start}`"
    keys, argv = (tuple(line.split(":", 1)[1].split()) for line in lines[1:3])
    names = [name.removesuffix("*") for name in (*keys, *argv)]
    if bad := [name for name in names if not NAME.match(name)]:
        return f"not a name in the contract: {bad[0]}"
    if len(set(names)) < len(names):
        return "a name twice in the contract"
    if any(name.endswith("*") for name in (*keys[:-1], *argv[:-1])):
        return "only the last name can be the rest"
    return Header(stem, keys, argv)


def at_commas(values: str) -> list[str]:
    """Splits `a(1, 2), b` at the commas outside brackets."""
    parts, depth = [""], 0
    for char in values:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def bindings(code: str, array: str) -> list[tuple[str, int]]:
    """`local a, b = KEYS[1], tonumber(KEYS[2])` binds [("a", 1), ("b", 2)]."""
    found: list[tuple[str, int]] = []
    for statement in BOUND.finditer(code):
        names = [name.strip() for name in statement[1].split(",")]
        for name, value in zip(names, at_commas(statement[2]), strict=False):
            if len(indexes := re.findall(rf"\b{array}\[(\d+)\]", value)) == 1:
                found.append((name, int(indexes[0])))
    return found


def binding_findings(header: Header, text: str) -> Iterator[str]:
    code = code_of(text, strings=False)
    top = re.split(r"\bredis\.p?call\b", code, maxsplit=1)[0]
    for array, declared in (("KEYS", header.keys), ("ARGV", header.argv)):
        single = [name for name in declared if not name.endswith("*")]
        expected = [(name, index) for index, name in enumerate(single, start=1)]
        if (bound := bindings(top, array)) != expected:
            yield f"binds {array} as {bound} at its top, the contract says {expected}"
        used = {int(index) for index in re.findall(rf"\b{array}\[(\d+)\]", code)}
        if single == list(declared) and (extra := used - set(range(1, len(single) + 1))):
            yield f"uses {array}[{min(extra)}], which the contract does not declare"
        if (len(single) < len(declared)) != bool(re.search(rf"\b{array}\b(?!\[\d+\])", code)):
            yield f"{array}: the rest is declared with `*` if and only if it is used"


def word_findings(text: str) -> Iterator[str]:
    code = CAPPED_EVENTS.sub("redis.call('XADD', ev, ''", code_of(text, strings=True))
    for token in TOKEN.finditer(code):
        if (word := token[0].strip("'\"[]").upper()) in BANNED:
            yield f"calls {word}"
    if decoded := DECODES.search(code):
        yield f"decodes a body: {decoded[0]}"


def functions(source: str) -> dict[str, list[str] | str]:
    """The keyword parameters of each function and method, or why they do not count."""
    found: dict[str, list[str] | str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            positional = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
            keywords = [arg.arg for arg in node.args.kwonlyargs]
            found[node.name] = keywords if positional in ([], ["self"]) else f"takes {positional} by position"
    return found


def script_findings(path: Path, known: dict[str, list[str] | str]) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    header = header_of(text, path.stem)
    if isinstance(header, str):
        yield header
        return
    yield from binding_findings(header, text)
    if (parameters := known.get(path.stem)) != header.parameters:
        yield f"its Python function has {parameters}, the contract says {header.parameters}"


def findings(broker: Path) -> list[str]:
    known = functions((broker / "scripts.py").read_text(encoding="utf-8"))
    found: list[str] = []
    scripts, libraries = sorted(broker.glob("lua/*.lua")), sorted(broker.glob("lua/lib/*.lua"))
    for path in scripts:
        found += [f"{path.name}: {finding}" for finding in script_findings(path, known)]
    for path in (*scripts, *libraries):
        found += [f"{path.name}: {finding}" for finding in word_findings(path.read_text(encoding="utf-8"))]
    names = {path.stem for path in libraries}
    uses = {path: set(USE.findall(path.read_text(encoding="utf-8"))) for path in (*scripts, *libraries)}
    for path, used in uses.items():
        found += [f"{path.name}: uses {name}, there is no lua/lib/{name}.lua" for name in sorted(used - names)]
    found += [f"lib/{name}.lua: no script uses it" for name in sorted(names - set[str]().union(*uses.values()))]
    return found


def test_every_script_keeps_its_contract() -> None:
    assert list(BROKER.glob("lua/*.lua"))
    assert findings(BROKER) == []


def test_contracts_are_the_headers() -> None:
    from streamq.broker import scripts

    headers = {path.stem: header_of(path.read_text(encoding="utf-8"), path.stem) for path in BROKER.glob("lua/*.lua")}
    known = {name: Header(each.name, each.keys, each.argv) for name, each in scripts.CONTRACTS.items()}
    assert known == headers


SCRIPTS = """\
class Scripts:
    async def move(self, *, due: str, streams: list[str], now: int, ids: list[str]): ...
"""
MOVE = """\
-- move.lua: moves jobs that are due into their streams,
--   in the order of their priority
-- KEYS: due streams*
-- ARGV: now ids*
-- returns: how many were moved
-- @use clock
local due, none =
  KEYS[1],
  nil
local now = tonumber(ARGV[1]) or clock('KEYS[7]') -- not KEYS[8]
for i = 2, #ARGV do
  redis.call('XADD', KEYS[i], '*', 'i', ARGV[i])
end
redis.call('XADD', ev, 'MAXLEN', '~', 1000, '*', 'e', cjson.decode(ids))
return redis.call('ZREM', due, unpack(ARGV, 2))
"""
CLOCK = "local function clock() return redis.call('TIME')[1] end\n"
PLANTED = [
    ("no first line", "-- move.lua: moves", "-- moves", "`-- move.lua: `"),
    ("another name", "-- move.lua", "-- shift.lua", "`-- move.lua: `"),
    ("no KEYS", "-- KEYS: due streams*\n", "", "`-- KEYS:`"),
    ("no ARGV", "-- ARGV: now ids*\n", "", "`-- ARGV:`"),
    ("no returns", "-- returns: how many were moved\n", "", "`-- returns: `"),
    ("a rest that is not last", "due streams*", "due* streams", "only the last"),
    ("a name twice", "ARGV: now ids*", "ARGV: now due*", "twice"),
    ("commas", "due streams*", "due, streams*", "not a name"),
    ("bound under another name", "local due,", "local soon,", "at its top"),
    ("bound out of order", "KEYS[1]", "KEYS[2]", "at its top"),
    ("bound too late", "local due", "redis.call('TIME')\nlocal due", "at its top"),
    ("never bound", "KEYS[1]", "due", "at its top"),
    ("a rest that nobody reads", "KEYS[i]", "due", "if and only if"),
    ("a rest that is not declared", "-- ARGV: now ids*", "-- ARGV: now", "if and only if"),
    ("an unknown library", "@use clock", "@use wheel", "no lua/lib/wheel.lua"),
    ("a library that nobody uses", "-- @use clock\n", "", "no script uses it"),
    ("KEYS", "'ZREM', due", "'KEYS', due", "calls KEYS"),
    ("FUNCTION", "'ZREM', due", "'FUNCTION', due", "calls FUNCTION"),
    ("FLUSHALL", "'ZREM', due", '"flushall", due', "calls FLUSHALL"),
    ("XTRIM", "'ZREM', due", "'XTRIM', due", "calls XTRIM"),
    ("MAXLEN", "KEYS[i], '*'", "KEYS[i], 'MAXLEN', '~', 9, '*'", "calls MAXLEN"),
    ("MINID", "KEYS[i], '*'", "KEYS[i], 'MINID', '~', 9, '*'", "calls MINID"),
    ("cjson of a body", "cjson.decode(ids)", "cjson.decode(body)", "decodes a body"),
    ("cmsgpack of a record", "cjson.decode(ids)", "cmsgpack.unpack(old_record)", "decodes a body"),
]


def plant(root: Path, move: str, scripts: str = SCRIPTS) -> Path:
    (root / "lua" / "lib").mkdir(parents=True)
    (root / "lua" / "move.lua").write_text(move, encoding="utf-8")
    (root / "lua" / "lib" / "clock.lua").write_text(CLOCK, encoding="utf-8")
    (root / "scripts.py").write_text(scripts, encoding="utf-8")
    return root


def test_a_sound_script_has_no_findings(tmp_path: Path) -> None:
    assert findings(plant(tmp_path, MOVE)) == []


@pytest.mark.parametrize(("right", "wrong", "finding"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_a_planted_mistake_is_found(tmp_path: Path, right: str, wrong: str, finding: str) -> None:
    assert right in MOVE
    found = findings(plant(tmp_path, MOVE.replace(right, wrong, 1)))
    assert any(finding in each for each in found), found


def test_an_index_that_is_not_declared_is_found(tmp_path: Path) -> None:
    move = "-- move.lua: x\n-- KEYS: due\n-- ARGV:\n-- returns: x\nlocal due = KEYS[1]\nreturn due .. KEYS[2]\n"
    found = findings(plant(tmp_path, move, "def move(*, due: str): ..."))
    assert any("uses KEYS[2], which the contract does not declare" in each for each in found), found


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("move(", "shift("),
        ("due:", "soon:"),
        ("now: int, ids: list[str]", "ids: list[str], now: int"),
        ("*, ", ""),
    ],
    ids=["no function", "another name", "another order", "positional"],
)
def test_a_function_that_differs_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    found = findings(plant(tmp_path, MOVE, SCRIPTS.replace(right, wrong, 1)))
    assert len(found) == 1
    assert "its Python function has" in found[0]

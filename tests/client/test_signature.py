"""Arguments: what fits is told at the call, and becomes what the annotations say on the worker."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest

from streamq import ConfigurationError, Context, Depends, InvalidArguments
from streamq.client.signature import Parameters

if TYPE_CHECKING:
    from nowhere import Absent  # type: ignore[import-not-found]


@dataclass
class Point:
    x: int
    y: int = 0


class Box(msgspec.Struct):
    point: Point


class Colour(Enum):
    RED = "red"


class Opaque: ...


def parameters(fn: Callable[..., Any]) -> Parameters:
    return Parameters("shop.task", fn)


def travelled(fn: Callable[..., Any], *args: Any, codec: str = "", **kwargs: Any) -> Any:
    each = parameters(fn)
    return each.decode(*each.encode(args, kwargs, codec), codec)


def plain(x: int, y: int = 2) -> int:
    return x + y


def keyword_only(*, name: str) -> None: ...


def any_number(*numbers: int, **named: float) -> None: ...


def with_context(ctx: Context[Any], x: int) -> None: ...


def with_depends(x: int, y: int = 0, db: str = Depends(lambda: "db")) -> None: ...


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (plain, (1,), {}),
        (plain, (1, 2), {}),
        (plain, (1,), {"y": 3}),
        (keyword_only, (), {"name": "n"}),
        (any_number, (1, 2, 3), {"z": 1.5}),
        (any_number, (), {}),
        (with_context, (1,), {}),
        (with_depends, (1, 2), {}),
    ],
)
def test_a_call_that_fits(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    parameters(fn).check(args, kwargs)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "message"),
    [
        (plain, (), {}, "missing a required argument: 'x'"),
        (plain, (1, 2, 3), {}, "too many positional"),
        (plain, (1,), {"z": 3}, "unexpected keyword argument 'z'"),
        (keyword_only, (), {}, "'name'"),
        (keyword_only, ("n",), {}, "too many positional"),
        (with_context, (), {}, "missing a required argument: 'x'"),
        (with_context, (1, 2), {}, "too many positional"),
        (with_depends, (1, 2, "db"), {}, "too many positional"),
        (with_depends, (1,), {"db": "db"}, "'db'"),
    ],
)
def test_a_call_that_does_not_fit(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArguments, match=re.escape(message)) as caught:
        parameters(fn).check(args, kwargs)
    assert "shop.task(" in str(caught.value)


def test_the_message_shows_what_is_expected() -> None:
    with pytest.raises(InvalidArguments, match=re.escape("It takes shop.task(x: int, y: int = 2).")):
        parameters(plain).check((), {})


def rich(
    point: Point,
    box: Box,
    when: datetime,
    id: UUID,
    price: Decimal,
    colour: Colour,
    path: Path,
    many: set[int],
    untyped,  # type: ignore[no-untyped-def]
    maybe: int | None = None,
) -> None: ...


@pytest.mark.parametrize("codec", ["", "msgpack", "json"])
@pytest.mark.parametrize("by_name", [False, True])
def test_arguments_become_the_annotated_types(codec: str, by_name: bool) -> None:
    given = {
        "point": Point(1, 2),
        "box": Box(Point(3)),
        "when": datetime(2025, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        "id": UUID(int=7),
        "price": Decimal("1.10"),
        "colour": Colour.RED,
        "path": Path("a/b"),
        "many": {1, 2},
        "untyped": [1, {"a": None}],
        "maybe": 5,
    }
    if by_name:
        args, kwargs = travelled(rich, codec=codec, **given)
        assert (args, kwargs) == ([], given)
    else:
        args, kwargs = travelled(rich, *given.values(), codec=codec)
        assert (args, kwargs) == (list(given.values()), {})


def test_pydantic_models_travel() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Order", id=(int, ...))

    def order(one, other=None) -> None: ...  # type: ignore[no-untyped-def]

    order.__annotations__ = {"one": model, "other": model}
    assert travelled(order, model(id=3), other=model(id=4)) == ([model(id=3)], {"other": model(id=4)})


def test_more_than_fifteen_arguments_and_variable_ones() -> None:
    assert travelled(any_number, *range(40), a=1.5) == (list(range(40)), {"a": 1.5})
    with pytest.raises(InvalidArguments, match=r"'numbers' is annotated int.*'x'"):
        travelled(any_number, 1, "x")
    with pytest.raises(InvalidArguments, match="float"):
        travelled(any_number, a="x")


@pytest.mark.parametrize("codec", ["", "json"])
def test_a_value_that_does_not_fit_names_the_parameter(codec: str) -> None:
    with pytest.raises(InvalidArguments, match=r"shop\.task: the parameter 'y' is annotated int.*given 'two'"):
        travelled(plain, 1, "two", codec=codec)
    with pytest.raises(InvalidArguments, match="the parameter 'x' is annotated int"):
        travelled(plain, x=[1], codec=codec)


def test_arguments_of_another_version_of_the_task_do_not_fit() -> None:
    def newer(x: int, y: int, z: int) -> None: ...

    raws = parameters(plain).encode((1, 2), {}, "")
    with pytest.raises(InvalidArguments, match="missing a required argument: 'z'"):
        parameters(newer).decode(*raws, "")
    raws = parameters(newer).encode((1, 2, 3), {}, "")
    with pytest.raises(InvalidArguments, match="too many"):
        parameters(plain).decode(*raws, "")


@pytest.mark.parametrize(
    ("args", "kwargs", "name"), [((Opaque(), 1), {}, "x"), ((1, Opaque()), {}, "y"), ((1,), {"y": [Opaque()]}, "y")]
)
def test_an_argument_that_cannot_be_serialised_is_named(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> None:
    with pytest.raises(InvalidArguments, match=f"the argument '{name}'.*(Opaque|list)"):
        parameters(plain).encode(args, kwargs, "")


def test_too_deep_and_too_large_values_are_named_too() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 2**70, "\ud800"):
        with pytest.raises(InvalidArguments, match="the argument 'y'"):
            parameters(plain).encode((1, value), {}, "")


def test_an_unresolvable_annotation_leaves_the_others_alone() -> None:
    class Local: ...

    def task(ctx: Context[Local], a: Absent, b: Local, c: int) -> None: ...

    each = parameters(task)
    assert each.wants_context
    assert list(each.public.parameters) == ["a", "b", "c"]
    assert each.decode(*each.encode(([1], "b", 3), {}, ""), "") == ([[1], "b", 3], {})
    with pytest.raises(InvalidArguments, match="'c' is annotated int"):
        each.decode(*each.encode((1, 2, "x"), {}, ""), "")


def test_a_type_that_nobody_can_decode_leaves_the_others_alone() -> None:
    def task(a: Callable[[], int], b: int) -> None: ...

    each = parameters(task)
    with pytest.raises(InvalidArguments, match="'b' is annotated int"):
        each.decode(*each.encode((1, "x"), {}, ""), "")


def test_results_become_the_annotated_type() -> None:
    def gives() -> Point: ...  # type: ignore[empty-body]

    from streamq.broker import wire

    assert parameters(gives).result(wire.encode_value(Point(1))) == Point(1)
    assert parameters(gives).result(wire.encode_value("no point")) == "no point"


def test_depends_parameters_come_last() -> None:
    def wrong(db: str = Depends(lambda: ""), x: int = 0) -> None: ...

    def right(db: str = Depends(lambda: ""), *, x: int) -> None: ...

    with pytest.raises(ConfigurationError, match="'x' stands after 'db'"):
        parameters(wrong)
    assert list(parameters(right).public.parameters) == ["x"]


def test_the_names_that_callers_make_up_are_not_remembered() -> None:
    each = parameters(any_number)
    for index in range(100):
        assert each.decode(*each.encode((), {f"n{index}": index}, ""), "") == ([], {f"n{index}": float(index)})
    assert len(each._by_name) == 1


def test_the_message_says_the_type_of_what_cannot_be_serialised() -> None:
    with pytest.raises(InvalidArguments, match="of type object"):
        parameters(plain).encode((object(),), {}, "")

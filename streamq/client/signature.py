"""What a task takes and returns: looked at once, checked at every call, converted on the worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter
from types import GenericAlias
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Raw

from streamq.broker import wire
from streamq.client.annotations import annotations_of, is_context
from streamq.client.depends import dependencies_of
from streamq.client.secret import HIDDEN, hides
from streamq.core.codec import unseal
from streamq.errors import ConfigurationError, InvalidArguments

Decode = Callable[[Raw | bytes], Any]

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_MANY: Final = 64  # arguments of one call
_LONG: Final = 1_000  # bytes of an argument that is decoded once more, for a message
_SIZES: Final = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # bytes of the length of a long array or map
_EMPTY: Final = {b"\x80", b"\xc4\x02{}"}  # the empty keyword map, as msgpack and as json


class Parameters:
    """The parameters of a task that its callers give: without the Context and the `Depends` ones.

    Raises `ConfigurationError` for a function that cannot be a task.
    """

    __slots__ = (
        "_by_count",
        "_by_name",
        "_hints",
        "_least",
        "_most",
        "_named_rest",
        "_positional",
        "_rest",
        "_result",
        "_secret",
        "public",
        "task",
        "wants_context",
    )

    def __init__(self, task: str, fn: Callable[..., object]) -> None:
        self.task: Final = task
        self._hints = annotations_of(fn)
        given = list(inspect.signature(fn).parameters.values())
        self.wants_context: Final = bool(given) and is_context(self._hints.get(given[0].name))
        depends = dependencies_of(fn)
        taken = given[1:] if self.wants_context else given
        _check_order(task, taken, depends)
        public = [each for each in taken if each.name not in depends]
        self.public: Final = inspect.Signature(
            [each.replace(annotation=self._hints.get(each.name, each.annotation)) for each in public]
        )
        self._positional = [each.name for each in public if each.kind in _POSITIONAL]
        self._rest = next((each.name for each in public if each.kind is Parameter.VAR_POSITIONAL), "")
        self._named_rest = next((each.name for each in public if each.kind is Parameter.VAR_KEYWORD), "")
        self._least, self._most = _arity(public)
        secret = {each.name for each in public if hides(self._hints.get(each.name))}
        self._secret = frozenset({*secret, ""} if secret else ())  # with one, also what no parameter is there for
        self._by_count: dict[tuple[str, int], Decode] = {}
        self._by_name: dict[tuple[str, str], Decode] = {}
        self._result: Decode | None = None

    def check(self, args: Sequence[object], kwargs: Mapping[str, object] | Collection[str]) -> None:
        """Raise `InvalidArguments` unless the task can be called so. Without keywords it is two comparisons."""
        if not kwargs and self._least <= len(args) <= self._most:
            return
        try:
            self.public.bind(*args, **dict.fromkeys(kwargs))
        except TypeError as error:
            given, _ = self.shown(args, {})
            shown = ", ".join([*(_short(each) for each in given), *(f"{name}=..." for name in kwargs)])
            raise InvalidArguments(
                f"{self.task}({shown}) does not fit: {error}. It takes {self}."
                " (What a worker fills in, Context and Depends, is not given by the caller.)"
            ) from None

    def shown(self, args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
        """The arguments as people may see them: without what is annotated `Secret[...]`."""
        if not self._secret:
            return list(args), dict(kwargs)
        given = [HIDDEN if self._name_of(index) in self._secret else value for index, value in enumerate(args)]
        return given, {n: HIDDEN if self._known(n) in self._secret else value for n, value in kwargs.items()}

    def encode(self, args: Sequence[object], kwargs: Mapping[str, object], codec: str) -> tuple[Raw, Raw]:
        """Arguments as bytes. Raises `InvalidArguments` that names the one that cannot be serialised."""
        encode = wire.CODECS[codec or "msgpack"].encode
        try:
            return encode(args), encode(kwargs) if kwargs else _no_kwargs(encode, codec)
        except Exception as error:  # noqa: BLE001 - raised again; what could quote a secret is left out
            raise self._not_serialisable(encode, args, kwargs, error) from (None if self._secret else error)

    def identity(self, args: Sequence[object], kwargs: Mapping[str, object], codec: str) -> Raw:
        """The same bytes for the same call, however it is written: `f(1)`, `f(x=1)`, a default left out or not."""
        bound = self.public.bind(*args, **kwargs)
        bound.apply_defaults()
        return wire.CODECS[codec or "msgpack"].encode(list(bound.arguments.items()))

    def _not_serialisable(
        self,
        encode: Callable[[object], Raw],
        args: Sequence[object],
        kwargs: Mapping[str, object],
        error: Exception,
    ) -> InvalidArguments:
        named = [(self._name_of(index), value) for index, value in enumerate(args)]
        for name, value in [*named, *kwargs.items()]:
            try:
                encode(value)
            except Exception as cause:  # noqa: BLE001 - whatever it is, this argument is to blame
                if self._known(name) in self._secret:
                    return InvalidArguments(f"{self.task}: the argument {name!r}, a secret, cannot be serialised.")
                return InvalidArguments(
                    f"{self.task}: the argument {name!r} ({_short(value)}, of type {type(value).__qualname__}) cannot"
                    f" be serialised: {cause}. Pass plain values, dataclasses, msgspec.Struct, datetime, UUID,"
                    " Decimal, Enum, Path or pydantic models, or the id of the object instead of the object."
                )
        return InvalidArguments(f"{self.task}: the arguments cannot be serialised: {error}")

    def decode(self, args: Raw, kwargs: Raw, codec: str) -> tuple[list[object], dict[str, object]]:
        """Bytes as arguments of the annotated types.

        Raises `InvalidArguments` that names the parameter, its type and what came, or says that the
        arguments do not fit this version of the task; `Undecodable` for what a codec made.
        """
        try:
            values = self._decode_positional(args, codec)
            named: dict[str, object] = {} if bytes(kwargs) in _EMPTY else self._decode_named(kwargs, codec)
        except Exception as error:
            for raw in (args, kwargs):
                unseal(None, raw, 0)
            if isinstance(error, InvalidArguments):
                raise
            said = "" if self._secret else f": {type(error).__name__}: {error}"
            raise InvalidArguments(f"{self.task}: its arguments cannot be read{said}"[:1000]) from None
        self.check(values, named)
        return values, named

    def _decode_positional(self, args: Raw, codec: str) -> list[object]:
        count = _length(args) if codec in ("", "msgpack") else -1
        if count < 0:
            count = len(self._decoder(codec, list[Any])(args))
        if count > _MANY or count > self._most:
            return self._decode_many(args, codec, count)
        if (decode := self._by_count.get((codec, count))) is None:
            kinds = tuple(self._kind_at(index) for index in range(count))
            decode = self._decoder(codec, GenericAlias(tuple, kinds))
            if len(self._by_count) < 64:  # callers of *args could give any number
                self._by_count[codec, count] = decode
        try:
            return list(decode(args))
        except Exception as error:
            if codec in ("", "msgpack"):
                raws: list[Raw] = self._decoder(codec, list[Raw])(args)
            else:
                raws = [wire.encode_value(value) for value in self._decoder(codec, list[Any])(args)]
            for index, raw in enumerate(raws):
                self._decode_one(self._name_of(index), self._kind_at(index), raw)
            raise InvalidArguments(f"{self.task}: its arguments cannot be read: {error}") from error

    def _decode_many(self, args: Raw, codec: str, count: int) -> list[object]:
        """More than a type for each would pay for: a million would take a minute, and who wrote the job is unknown."""
        if count > self._most:
            raise InvalidArguments(
                f"{self.task}: it was given {count:,} positional arguments, too many. It takes {self}."
            )
        own = len(self._positional)
        if not own and codec in ("", "msgpack"):  # what does not fit is found before it is made
            return cast("list[object]", self._decode_one(self._rest, GenericAlias(list, (self._kind_at(0),)), args))
        loose: list[object] = self._decoder(codec, list[Any])(args)
        head = [self._convert(self._name_of(index), self._kind_at(index), loose[index]) for index in range(own)]
        rest: list[object] = cast(
            Any, self._convert(self._rest, GenericAlias(list, (self._kind_at(own),)), loose[own:])
        )
        return head + rest

    def _decode_named(self, kwargs: Raw, codec: str) -> dict[str, object]:
        if codec in ("", "msgpack"):
            self._check_named(_length(kwargs))
            raws: dict[str, Raw] = self._decoder(codec, dict[str, Raw])(kwargs)
            named: dict[str, object] = {}
            for name, raw in raws.items():
                known = self._known(name)
                if (decode := self._by_name.get((codec, known))) is None:
                    decode = self._by_name[codec, known] = self._decoder(codec, self._kind_of(known))
                try:
                    named[name] = decode(raw)
                except Exception:  # noqa: BLE001 - raised again with the parameter's name
                    named[name] = self._decode_one(name, self._kind_of(known), raw)
            return named
        loose: dict[str, object] = self._decoder(codec, dict[str, Any])(kwargs)
        self._check_named(len(loose))
        return {name: self._convert(name, self._kind_of(self._known(name)), value) for name, value in loose.items()}

    def _check_named(self, count: int) -> None:
        if not self._named_rest and count > len(self.public.parameters):
            raise InvalidArguments(f"{self.task}: it was given {count:,} arguments by name. It takes {self}.")

    def _convert(self, name: str, kind: Any, value: object) -> object:
        if kind is Any:
            return value
        try:
            raw = wire.encode_value(value)
        except Exception as error:  # noqa: BLE001 - JSON has larger numbers
            raise InvalidArguments(f"{self.task}: the parameter {name!r} cannot be converted: {error}") from None
        return self._decode_one(name, kind, raw)

    def _decode_one(self, name: str, kind: Any, raw: Raw) -> object:
        try:
            return wire.decoder(_usable(kind))(raw)
        except Exception as error:
            if self._known(name) in self._secret:  # nor the cause: pydantic quotes what it was given
                raise InvalidArguments(
                    f"{self.task}: the parameter {name!r}, a secret, was given what is no {_type_name(kind)}"
                ) from None
            raise InvalidArguments(
                f"{self.task}: the parameter {name!r} is annotated {_type_name(kind)}, and was given"
                f" {_told(raw)}: {error}"
            ) from error

    def _decoder(self, codec: str, kind: Any) -> Decode:
        return _make_decoder(wire.CODECS[codec or "msgpack"].decoder, kind)

    def _kind_at(self, index: int) -> Any:
        return self._kind_of(self._name_of(index))

    def _name_of(self, index: int) -> str:
        return self._positional[index] if index < len(self._positional) else self._rest

    def _known(self, name: str) -> str:
        """The parameter that takes this keyword: of `**kwargs`, which callers could fill with any names."""
        return name if name in self.public.parameters else self._named_rest

    def _kind_of(self, name: str) -> Any:
        return _usable(self._hints.get(name, Any))

    def result(self, raw: Raw) -> object:
        """A result as the annotated return type; as plain values if it does not fit."""
        if self._result is None:
            self._result = _make_decoder(wire.decoder, _usable(self._hints.get("return", Any)))
        try:
            return self._result(raw)
        except Exception:  # noqa: BLE001 - a wrong annotation must not hide a result that is there
            return wire.decode_value(raw)

    def __str__(self) -> str:
        return f"{self.task}{self.public}"


def _check_order(task: str, taken: Sequence[Parameter], depends: Collection[str]) -> None:
    seen = ""
    for each in taken:
        if each.name in depends and each.kind in _POSITIONAL:
            seen = each.name
        elif seen and each.kind in (*_POSITIONAL, Parameter.VAR_POSITIONAL):
            raise ConfigurationError(
                f"{task}: the parameter {each.name!r} stands after {seen!r}, which is filled in by Depends."
                " Put the Depends parameters last, or after a bare *."
            )


def _arity(public: Sequence[Parameter]) -> tuple[float, float]:
    """How few and how many positional arguments always fit, if there are no others."""
    positional = [each for each in public if each.kind in _POSITIONAL]
    least: float = sum(each.default is each.empty for each in positional)
    most: float = len(positional)
    for each in public:
        if each.kind is Parameter.VAR_POSITIONAL:
            most = float("inf")
        if each.kind is Parameter.KEYWORD_ONLY and each.default is each.empty:
            least = float("inf")
    return least, most


def _length(raw: Raw) -> int:
    """How many items a msgpack array or map has, from its first bytes; -1 if it is neither."""
    first = (head := memoryview(raw))[0]
    if 0x80 <= first <= 0x9F:
        return first & 0x0F
    size = _SIZES.get(first, 0)
    return int.from_bytes(head[1 : 1 + size]) if size else -1


def _make_decoder(make: Callable[[Any], Decode], kind: Any) -> Decode:
    try:
        return make(kind)
    except (TypeError, NotImplementedError):
        return make(list[Any] if getattr(kind, "__origin__", None) is tuple else Any)


def _decodable(kind: Any) -> Any:
    try:
        about = msgspec.inspect.type_info(kind)
    except (TypeError, NotImplementedError):
        return Any
    custom = isinstance(about, msgspec.inspect.CustomType)
    # Callable[[], int] or a protocol: nothing can be compared with it.
    bare = kind.__origin__ if hasattr(kind, "__metadata__") else kind  # of Annotated[...]
    return Any if custom and (not isinstance(bare, type) or getattr(bare, "_is_protocol", False)) else kind


def _usable(kind: Any) -> Any:
    return Any if isinstance(kind, (str, TypeVar)) or kind is Parameter.empty else _decodable(kind)


def _no_kwargs(encode: Callable[[object], Raw], codec: str) -> Raw:
    return wire.NO_KWARGS if codec in ("", "msgpack") else encode({})


def _short(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 - the message must not fail in its turn
        shown = f"<{type(value).__qualname__}>"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _told(raw: Raw) -> str:
    try:
        return _short(wire.decode_value(raw)) if len(raw) < _LONG else f"{len(raw):,} bytes"
    except Exception:  # noqa: BLE001 - as above: a text that is not UTF-8
        return _short(bytes(raw))


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)

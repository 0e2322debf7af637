"""What a task takes and returns: looked at once, checked at every call, converted on the worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter
from types import GenericAlias
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from streamq.broker import wire
from streamq.client.annotations import annotations_of, is_context
from streamq.client.depends import dependencies_of
from streamq.errors import ConfigurationError, InvalidArguments

Decode = Callable[[Raw | bytes], Any]

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
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
            shown = ", ".join([*(_short(each) for each in args), *(f"{name}=..." for name in kwargs)])
            raise InvalidArguments(
                f"{self.task}({shown}) does not fit: {error}. It takes {self}."
                " (What a worker fills in, Context and Depends, is not given by the caller.)"
            ) from None

    def encode(self, args: Sequence[object], kwargs: Mapping[str, object], codec: str) -> tuple[Raw, Raw]:
        """Arguments as bytes. Raises `InvalidArguments` that names the one that cannot be serialised."""
        encode = wire.CODECS[codec or "msgpack"].encode
        try:
            return encode(args), encode(kwargs) if kwargs else _no_kwargs(encode, codec)
        except Exception as error:
            raise self._not_serialisable(encode, args, kwargs, error) from error

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
                return InvalidArguments(
                    f"{self.task}: the argument {name!r} ({_short(value)}, of type {type(value).__qualname__}) cannot"
                    f" be serialised: {cause}. Pass plain values, dataclasses, msgspec.Struct, datetime, UUID,"
                    " Decimal, Enum, Path or pydantic models, or the id of the object instead of the object."
                )
        return InvalidArguments(f"{self.task}: the arguments cannot be serialised: {error}")

    def decode(self, args: Raw, kwargs: Raw, codec: str) -> tuple[list[object], dict[str, object]]:
        """Bytes as arguments of the annotated types.

        Raises `InvalidArguments` that names the parameter, its type and what came, or says that the
        arguments do not fit this version of the task.
        """
        values = self._decode_positional(args, codec)
        if bytes(kwargs) in _EMPTY:
            named: dict[str, object] = {}
        else:
            named = self._decode_named(kwargs, codec)
        self.check(values, named)
        return values, named

    def _decode_positional(self, args: Raw, codec: str) -> list[object]:
        count = _length(args) if codec in ("", "msgpack") else -1
        if count < 0:
            count = len(self._decoder(codec, list[Any])(args))
        if (decode := self._by_count.get((codec, count))) is None:
            kinds = tuple(self._kind_at(index) for index in range(count))
            decode = self._decoder(codec, GenericAlias(tuple, kinds))
            if len(self._by_count) < 64:  # callers of *args could give any number
                self._by_count[codec, count] = decode
        try:
            return list(decode(args))
        except Exception as error:
            loose: list[object] = self._decoder(codec, list[Any])(args)
            for index, value in enumerate(loose):
                self._convert(self._name_of(index), self._kind_at(index), value)
            raise InvalidArguments(f"{self.task}: its arguments cannot be read: {error}") from error

    def _decode_named(self, kwargs: Raw, codec: str) -> dict[str, object]:
        if codec in ("", "msgpack"):
            raws: dict[str, Raw] = self._decoder(codec, dict[str, Raw])(kwargs)
            named: dict[str, object] = {}
            for name, raw in raws.items():
                known = self._known(name)
                if (decode := self._by_name.get((codec, known))) is None:
                    decode = self._by_name[codec, known] = self._decoder(codec, self._kind_of(known))
                try:
                    named[name] = decode(raw)
                except Exception:  # noqa: BLE001 - raised again with the parameter's name
                    named[name] = self._convert(name, self._kind_of(known), wire.decode_value(raw))
            return named
        loose: dict[str, object] = self._decoder(codec, dict[str, Any])(kwargs)
        return {name: self._convert(name, self._kind_of(self._known(name)), value) for name, value in loose.items()}

    def _convert(self, name: str, kind: Any, value: object) -> object:
        try:
            return wire.decoder(_usable(kind))(wire.encode_value(value))
        except Exception as error:
            raise InvalidArguments(
                f"{self.task}: the parameter {name!r} is annotated {_type_name(kind)}, and was given"
                f" {_short(value)}: {error}"
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
        """A result as the annotated return type; undecorated by it if it does not fit."""
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
    """How many items a msgpack array has, from its first byte; -1 if that does not tell."""
    first = memoryview(raw)[0]
    return first & 0x0F if 0x90 <= first <= 0x9F else -1


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
    return Any if custom and (not isinstance(kind, type) or getattr(kind, "_is_protocol", False)) else kind


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


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)

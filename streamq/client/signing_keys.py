"""The setting `signing_keys`, checked. No message here has a secret in it, nor what could be a part of one."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import cast

from streamq.core.signing import SHORTEST, Keyring
from streamq.errors import ConfigurationError


def signing_keys(name: str, value: object) -> Keyring:
    """Pairs of an id and a secret, or the text of them. Raises `ConfigurationError`."""
    given = [_key(name, each) for each in (value.split(",") if isinstance(value, str) else _each(name, value))]
    if not given:
        raise ConfigurationError(f"{name} has no key in it: leave it out, or give the pair of an id and a secret.")
    if len(dict(given)) < len(given):
        raise ConfigurationError(f"{name}: two keys have the same id. An id is for one secret, for ever.")
    return Keyring(given)


def _each(name: str, value: object) -> Iterable[object]:
    if not isinstance(value, Iterable):
        raise ConfigurationError(f'{name} is no list of keys: give [("2026-11", secret), ...].')
    return cast(Iterable[object], value)


def _key(name: str, value: object) -> tuple[str, bytes]:
    kid, secret = _kid_and_base64(name, value) if isinstance(value, str) else _pair(name, value)
    if not (0 < len(kid) <= 64 and kid.isascii() and kid.isprintable()) or {*kid} & {*":, "}:
        raise ConfigurationError(f"{name}: the id of a key is 1 to 64 characters without spaces, ',' and ':'.")
    if len(secret) < SHORTEST:
        raise ConfigurationError(
            f"{name}: the secret of {kid} has {len(secret)} bytes, which can be guessed: give {SHORTEST} or more, as"
            " secrets.token_bytes(32) makes them."
        )
    return kid, secret


def _pair(name: str, value: object) -> tuple[str, bytes]:
    if isinstance(value, (tuple, list)) and len(pair := cast("Sequence[object]", value)) == 2:
        kid, secret = pair
        if isinstance(kid, str) and isinstance(secret, bytes):
            return kid, secret
    raise ConfigurationError(f'{name}: a key is a pair of str and bytes: ("2026-11", secret).')


def _kid_and_base64(name: str, value: str) -> tuple[str, bytes]:
    kid, _, encoded = value.strip().partition(":")
    try:
        return kid, base64.b64decode(encoded, validate=True)
    except ValueError:  # from None: the message of the cause could quote it
        raise ConfigurationError(f'{name}: a key is written "id:base64", as 2026-11:c2VjcmV0...') from None

"""Arguments and results encrypted with AES-GCM, jobs signed: who reads Redis learns nothing, who writes runs nothing.

The keys would come from where you keep secrets. A job says by which key it was encrypted, so that a new one can be
put in front of the old:

    pip install 'streamq[embedded]' cryptography
    python examples/encrypted.py
"""

from __future__ import annotations

import asyncio
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streamq import JobFailed, Secret, StreamQ


class Encrypted:
    """Keys by a number from 0 to 255; the newest encrypts, all of them decrypt."""

    def __init__(self, keys: dict[int, bytes]) -> None:
        self.ciphers = {number: AESGCM(key) for number, key in keys.items()}
        self.newest = max(keys)

    def encode(self, data: bytes) -> bytes:
        head = bytes([self.newest])
        nonce = os.urandom(12)  # once for each message: 2^32 of them a key are safe
        return head + nonce + self.ciphers[self.newest].encrypt(nonce, data, head)

    def decode(self, data: bytes) -> bytes:
        head, nonce, text = data[:1], data[1:13], data[13:]
        return self.ciphers[head[0]].decrypt(nonce, text, head)


FIRST, SECOND = AESGCM.generate_key(256), AESGCM.generate_key(256)
SIGNING_KEYS = [("2026-11", os.urandom(32))]
old = StreamQ("embedded://", namespace="vault", codec=Encrypted({1: FIRST}), signing_keys=SIGNING_KEYS)
app = StreamQ("embedded://", namespace="vault", codec=Encrypted({1: FIRST, 2: SECOND}), signing_keys=SIGNING_KEYS)
forger = StreamQ("embedded://", namespace="vault")


@app.task(name="charge")
async def charge(customer: int, card: Secret[str]) -> str:
    return f"customer {customer}, card ending in {card[-4:]}"


async def main() -> None:
    async with app:
        for other in (old, forger):  # other processes, on the server that is embedded here
            other.link.redirect(app.broker.connections.url_for_children)
        async with old, forger:
            print("call:", charge.s(7, card="4242 4242 4242 4242"))
            job = await charge.enqueue(7, card="4242 4242 4242 4242")
            found = await app.broker.find(job.queue, job.id)
            print("readable in Redis:", b"4242" in (found.body or b""))
            earlier = await old.enqueue("charge", 8, "1111 2222 3333 4444")
            forged = await forger.enqueue("charge", 9, "9999 9999 9999 9999")
            async with app.worker():
                print("result:", await job.result(timeout=10))
                print("by the old key:", await app.job(earlier.id).result(timeout=10))
                try:
                    await forged.result(timeout=10)
                except JobFailed as error:
                    print("forged:", str(error).split(" failed: ")[1])
            (letter,) = await app.dead_letters().list()
            print("dead letter:", letter.reason.value)


if __name__ == "__main__":
    asyncio.run(main())

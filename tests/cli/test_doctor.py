"""`streamq doctor` as it is typed."""

from __future__ import annotations

import json

from .conftest import Start


def test_a_sound_server_is_said_to_be_sound(start: Start, url: str) -> None:
    process = start("doctor", "--url", url)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines() if not line.startswith(" ")][:2] == ["server", "memory"]


def test_json_has_every_finding(start: Start, url: str) -> None:
    out, _ = start("doctor", "--url", url, "--json").communicate(timeout=20)
    found = json.loads(out)
    assert {"check", "severity", "says", "do"} == set(found[0])
    assert {"server", "memory", "durability", "clock", "network", "queues", "versions"} <= {f["check"] for f in found}


def test_a_durability_that_cannot_be_had_is_exit_code_5(start: Start, url: str) -> None:
    process = start("doctor", "--url", url, STREAMQ_DURABILITY="replicas:1")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 5
    assert "durability='replicas:1', and the server has 0 replicas: each enqueue would fail" in out


def test_with_strict_a_warning_fails(start: Start, url: str) -> None:
    process = start("doctor", "--url", url, "--strict")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == (1 if "warning" in out else 0)
    process = start("enqueue", "--url", url, "nobody.knows", STREAMQ_NAMESPACE="doctored")
    process.communicate(timeout=20)
    process = start("doctor", "--url", url, "--strict", STREAMQ_NAMESPACE="doctored")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "default: 1 job, and no live worker" in out


def test_with_redis_down_it_is_one_screen(start: Start) -> None:
    process = start("doctor", "--url", "redis://localhost:1/0")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "")
    assert err.startswith("streamq: cannot reach Redis: the connection was refused\n\n  where  redis://localhost:1/0\n")

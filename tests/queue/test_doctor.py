"""What the doctor reads from a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.celery import POISON_KEY
from config.settings import load_settings
from tasks.doctor import Wanted, choose_pairs, examine
from tasks.model.errors import InvalidRequest
from tasks.store.doctor import is_local, is_ours, read_redis, shown_url
from tests.queue.harness import RedisServer, Worker

ROLES = ("broker", "results", "records")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(address="127.0.0.1", password="open sesame") as made:  # noqa: S106
        yield made


def test_everything_is_seen(server: RedisServer) -> None:
    seen = read_redis(server.tcp_url, ROLES)
    assert seen.problem is None
    assert (seen.appendonly, seen.append_works, seen.appendfsync, seen.eviction) == (
        True, True, "everysec", "noeviction",
    )  # fmt: skip
    assert (seen.replica, seen.open_to_all, seen.foreign_keys) == (False, False, ())
    assert seen.version
    assert seen.used_bytes
    assert seen.limit_bytes
    assert seen.put_aside == 0
    assert seen.clock is not None
    assert abs(seen.clock.ahead_s) <= seen.clock.doubt_s + 0.001
    assert "sesame" not in seen.url


def test_a_password_that_is_wrong_is_told_apart(server: RedisServer) -> None:
    seen = read_redis(server.tcp_url.replace("sesame", "barley"), ROLES)
    assert seen.problem is not None
    assert seen.problem.code == "REDIS_AUTH_FAILED"


def test_what_is_forbidden_is_unseen(server: RedisServer) -> None:
    admin = server.client()
    admin.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["*"], commands=["+ping", "+time"])
    seen = read_redis(f"redis://narrow:pw@127.0.0.1:{server.port}/0", ROLES)
    assert seen.problem is None
    assert seen.clock is not None
    assert (seen.version, seen.appendonly, seen.eviction, seen.used_bytes, seen.foreign_keys) == (None,) * 5
    assert seen.open_to_all is False


def test_redis_without_a_password_is_open() -> None:
    with RedisServer(address="127.0.0.1") as server:
        assert read_redis(server.tcp_url, ROLES).open_to_all is True
        server.kill()
        seen = read_redis(server.tcp_url, ROLES)
        assert seen.problem is not None
        assert seen.problem.code == "REDIS_UNREACHABLE"


def test_keys_of_another_application_are_noticed_and_ours_are_not(tmp_path: Path) -> None:
    with RedisServer() as server:
        config = tmp_path / "vmferry.toml"
        config.write_text(f'broker_url = "{server.url}"\n')
        with Worker(config):
            examine(load_settings(config), Wanted(probe=False))
            assert read_redis(server.url, ROLES).foreign_keys == ()
        server.client().set("shop:cart:1", "x")
        server.client().lpush(POISON_KEY, "what is this")
        assert read_redis(server.url, ROLES).put_aside == 1
        assert read_redis(server.url, ROLES).foreign_keys == ("shop:cart:1",)


@pytest.mark.parametrize("key", ["_kombu.binding.celery", "_kombu.binding_permanent.shop", "celery", "shop:1"])
def test_another_celery_application_is_foreign(key: str) -> None:
    assert not is_ours(key)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis://localhost/0", True),
        ("redis+socket:///run/redis.sock", True),
        ("rediss://:pw@queue:6380/0", False),
        ("sentinel://a:26379/0;sentinel://b:26379/0", False),
    ],
)
def test_what_is_local(url: str, local: bool) -> None:
    assert is_local(url) is local


def test_no_password_of_any_sentinel_is_shown() -> None:
    url = "sentinel://:secret@a:26379/0;sentinel://me:secret@b:26379/0"
    assert shown_url(url) == "sentinel://:***@a:26379/0;sentinel://me:***@b:26379/0"


def test_many_hosts_are_tried_in_a_ring() -> None:
    hosts = [f"h{number}" for number in range(50)]
    pairs = [(a, b) for a in hosts for b in hosts if a != b]
    chosen, left_out = choose_pairs(pairs, hosts)
    assert {a for a, _ in chosen} == {b for _, b in chosen} == set(hosts)
    assert (len(chosen), len(left_out)) == (50, 50 * 49 - 50)


def test_hosts_that_are_not_in_the_inventory_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "vmferry.toml"
    config.write_text('[hosts.a]\nuri = "qemu:///system"\n')
    for wanted in (Wanted(to=("b",)), Wanted(pairs=(("a", "b"),)), Wanted(pairs=(("a", "a"),))):
        with pytest.raises(InvalidRequest):
            examine(load_settings(config), wanted)

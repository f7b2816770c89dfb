"""What callers may and may not ask for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.errors import InvalidRequest
from tasks.model.request import parse_devices, parse_id, parse_request, parse_sizes

GOOD: dict[str, Any] = {"vm": "web-7", "destination": "beta"}


def test_defaults_and_explicit_defaults_are_the_same_request() -> None:
    explicit = GOOD | {"source": None, "method": "auto", "storage": "auto", "policy": "default", "labels": {}}
    assert parse_request(GOOD).fingerprint() == parse_request(explicit).fingerprint()


def test_the_order_of_keys_and_labels_does_not_matter() -> None:
    one = parse_request({"vm": "a", "destination": "b", "labels": {"x": "1", "y": "2"}})
    other = parse_request({"labels": {"y": "2", "x": "1"}, "destination": "b", "vm": "a"})
    assert one.fingerprint() == other.fingerprint()


@pytest.mark.parametrize(
    "change",
    [{"vm": "web-8"}, {"destination": "gamma"}, {"source": "alpha"}, {"method": "live"}, {"labels": {"a": "b"}}],
)
def test_another_request_has_another_fingerprint(change: dict[str, Any]) -> None:
    assert parse_request(GOOD).fingerprint() != parse_request(GOOD | change).fingerprint()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vm": ""}, "vm"),
        ({"vm": "-rf"}, "vm"),
        ({"vm": "a/b"}, "vm"),
        ({"vm": "a\nb"}, "vm"),
        ({"vm": 7}, "vm"),
        ({"destination": "../x"}, "destination"),
        ({"destination": None}, "destination"),
        ({"method": "teleport"}, "method"),
        ({"storage": "magic"}, "storage"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": [1]}, "labels"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(GOOD | change)
    assert caught.value.code == "INVALID_REQUEST"
    assert named in caught.value.message


@given(
    st.dictionaries(
        st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3)
    )
)
def test_any_json_object_is_accepted_or_refused_clearly(values: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        parse_request(values)


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "ä", "a.b", None, 3, "a\n"])
def test_bad_ids_are_refused(bad: object) -> None:
    with pytest.raises(InvalidRequest):
        parse_id(bad)


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_good_ids_pass(good: str) -> None:
    assert parse_id(good) == good


@pytest.mark.parametrize(
    ("words", "sizes"),
    [
        (["vda=20G"], {"vda": 20 << 30}),
        (["vda=512MiB", "vdb=1t"], {"vda": 512 << 20, "vdb": 1 << 40}),
        (["vda=12345"], {"vda": 12345}),
        ([], {}),
    ],
)
def test_sizes_as_people_type_them(words: list[str], sizes: dict[str, int]) -> None:
    assert parse_sizes(words) == sizes


@pytest.mark.parametrize("word", ["20G", "vda=", "=20G", "vda=20X", "vda=-1", "vda=1.5G"])
def test_sizes_that_are_none(word: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_sizes([word])
    assert refused.value.code == "INVALID_REQUEST"
    assert refused.value.hint


def test_devices_as_people_type_them() -> None:
    assert parse_devices(["vda=/dev/vg0/web", "vdb=/dev/a=b"]) == {"vda": "/dev/vg0/web", "vdb": "/dev/a=b"}
    with pytest.raises(InvalidRequest):
        parse_devices(["/dev/vg0/web"])


@pytest.mark.parametrize("path", ["dev/sdb", "", "/", "/dev//sdb", "/dev/sd\nb", "/dev/sdb/"])
def test_devices_that_are_none(path: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_request({"vm": "web", "destination": "beta", "devices": {"vda": path}})


def test_defaults_do_not_change_the_fingerprint_of_older_requests() -> None:
    plain = parse_request({"vm": "web", "destination": "beta"})
    same = parse_request({"vm": "web", "destination": "beta", "devices": {}, "sizes": {}, "verify": "auto"})
    other = parse_request({"vm": "web", "destination": "beta", "verify": "basic"})
    assert plain.fingerprint() == same.fingerprint() != other.fingerprint()

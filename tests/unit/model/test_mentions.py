"""What a definition names, and which names mean the same."""

from __future__ import annotations

import pytest

from tasks.model.mentions import parse_mentions, plain_path, same_path

XML = """<domain><!-- /not/this --><os><nvram template='/fw/VARS.fd'> /nvram/web_VARS.fd </nvram></os>
<devices><disk type='volume'><source pool='vg0' volume='web'/></disk>
<disk type='block'><source dev='/dev/mapper/vg0-db'/>
<backingStore><source file='/images/base.img'/></backingStore></disk>
<interface><mac address='52:54:00:00:00:01'/></interface></devices></domain>"""


def test_values_texts_and_volumes() -> None:
    found = parse_mentions(XML)
    assert found.volumes == {("vg0", "web")}
    paths = {value for value in found.values if value.startswith("/")}
    assert paths == {"/fw/VARS.fd", "/nvram/web_VARS.fd", "/dev/mapper/vg0-db", "/images/base.img"}
    assert "52:54:00:00:00:01" in found.values


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/images/web.img", "/images//./web.img"),
        ("//images/web.img", "/images/web.img"),
        ("/dev/mapper/vg0-web", "/dev/vg0/web"),
        ("/dev/mapper/vg--a-web--1--b", "/dev/vg-a/web-1-b"),
    ],
)
def test_two_spellings_of_one(one: str, other: str) -> None:
    assert same_path(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/images/web.img", "/images/web.img2"),
        ("/dev/mapper/vg0-web", "/dev/vg0-web"),
        ("/dev/mapper/vg--web", "/dev/vg/web"),
        ("web", "/web"),
    ],
)
def test_others(one: str, other: str) -> None:
    assert not same_path(one, other)


def test_what_is_no_path_stays() -> None:
    assert plain_path("52:54:00:00:00:01") == "52:54:00:00:00:01"

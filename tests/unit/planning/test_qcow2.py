"""Headers of images that qemu-img made, and the same with another file below them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.planning.qcow2 import HEADER_BYTES, backing_path, parse_header, with_backing

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img makes the images")


def qemu_img(*args: object) -> str:
    return subprocess.run(["qemu-img", *map(str, args)], check=True, capture_output=True, text=True).stdout


def make(folder: Path, name: str = "top.qcow2", *options: str, backing: str = "base.raw") -> Path:
    qemu_img("create", "-f", "raw", folder / "base.raw", "4M")
    qemu_img("create", "-f", "qcow2", *options, "-b", backing, "-F", "raw", folder / name)
    return folder / name


def head(image: Path) -> bytes:
    with image.open("rb") as file:
        return file.read(HEADER_BYTES)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_what_qemu_img_wrote(tmp_path: Path, compat: str) -> None:
    found = parse_header(head(make(tmp_path, "top.qcow2", "-o", f"compat={compat}")))
    assert found is not None
    assert (found.backing, found.backing_format, found.capacity_bytes) == ("base.raw", "raw", 4 << 20)
    assert (found.snapshots, found.external_data, found.encrypted) == (0, False, False)


def test_without_a_file_below_it(tmp_path: Path) -> None:
    qemu_img("create", "-f", "qcow2", tmp_path / "a.qcow2", "4M")
    qemu_img("snapshot", "-c", "one", tmp_path / "a.qcow2")
    found = parse_header(head(tmp_path / "a.qcow2"))
    assert found is not None
    assert (found.backing, found.snapshots) == (None, 1)
    assert with_backing(head(tmp_path / "a.qcow2"), "/new") is None


def test_an_external_data_file(tmp_path: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", tmp_path / "a.qcow2", "4M")
    found = parse_header(head(tmp_path / "a.qcow2"))
    assert found is not None
    assert found.external_data


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("name", ["b", "another-and-much-longer-name.raw" * 6])
def test_qemu_img_reads_the_new_name(tmp_path: Path, compat: str, name: str) -> None:
    image = make(tmp_path, "top.qcow2", "-o", f"compat={compat}")
    (tmp_path / "base.raw").rename(tmp_path / name)
    changed = with_backing(head(image), f"{tmp_path}/{name}")
    assert changed is not None
    with image.open("r+b") as file:
        file.write(changed)
    seen = json.loads(qemu_img("info", "--output=json", image))
    assert (seen["backing-filename"], seen["backing-filename-format"]) == (f"{tmp_path}/{name}", "raw")
    assert "corrupt" not in qemu_img("check", image)


def test_a_name_without_room(tmp_path: Path) -> None:
    image = make(tmp_path, "top.qcow2", "-o", "cluster_size=512")
    assert with_backing(head(image), "/" + "x" * 500) is None
    assert with_backing(head(image), "/" + "x" * 2000) is None


@given(st.binary(max_size=200))
def test_anything_else_is_no_image(data: bytes) -> None:
    for text in (data, b"QFI\xfb" + data, b"QFI\xfb\0\0\0\3" + data):
        parse_header(text)
        with_backing(text, "/x")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/a/b", "/a/b"),
        ("b", "/images/b"),
        ("../b", "/b"),
        ("file:/a/b", "/a/b"),
        ("nbd://host/b", None),
        ("json:{}", None),
        ("rbd:pool/b", None),
        ("./with:colon", "/images/with:colon"),
    ],
)
def test_where_the_file_below_is(name: str, expected: str | None) -> None:
    assert backing_path(name, "/images/top.qcow2") == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("compat=1.1", ()),
        ("compression_type=zstd", ("has clusters that are compressed with zstd",)),
        ("extended_l2=on", ("has subclusters",)),
    ],
)
def test_what_a_plain_image_does_not_have(tmp_path: Path, options: str, words: tuple[str, ...]) -> None:
    qemu_img("create", "-f", "qcow2", "-o", options, tmp_path / "a.qcow2", "4M")
    found = parse_header(head(tmp_path / "a.qcow2"))
    assert found is not None
    assert found.options == words


def test_dirty_bitmaps(tmp_path: Path) -> None:
    qemu_img("create", "-f", "qcow2", tmp_path / "a.qcow2", "4M")
    qemu_img("bitmap", "--add", tmp_path / "a.qcow2", "one")
    found = parse_header(head(tmp_path / "a.qcow2"))
    assert found is not None
    assert found.options == ("has dirty bitmaps for incremental backups",)


def test_features_that_nobody_knows_here(tmp_path: Path) -> None:
    qemu_img("create", "-f", "qcow2", tmp_path / "a.qcow2", "4M")
    data = bytearray(head(tmp_path / "a.qcow2"))
    data[72 + 7] |= 1
    data[72] |= 1
    found = parse_header(bytes(data))
    assert found is not None
    assert found.options == ("was not closed as it should have been", "has features that are unknown here")

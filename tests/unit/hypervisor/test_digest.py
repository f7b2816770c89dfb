"""The checksum of contents: the same however they are cut into pieces and whatever of them is a hole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.hypervisor.digest import Digest

B = Digest.BLOCK
runs = st.lists(st.tuples(st.booleans(), st.integers(1, 3 * B)), max_size=6)


def contents(parts: list[tuple[bool, int]]) -> bytes:
    return b"".join(b"\x07" * length if data else bytes(length) for data, length in parts)


def digest_of(parts: list[tuple[bool, int]], *, holes: bool) -> str:
    digest = Digest()
    for data, length in parts:
        if data or not holes:
            digest.data(b"\x07" * length if data else bytes(length))
        else:
            digest.hole(length)
    return digest.hexdigest()


@given(runs, st.integers(1, 2 * B))
def test_holes_and_pieces_make_no_difference(parts: list[tuple[bool, int]], piece: int) -> None:
    whole, cut = contents(parts), Digest()
    for start in range(0, len(whole), piece):
        cut.data(whole[start : start + piece])
    assert digest_of(parts, holes=True) == digest_of(parts, holes=False) == cut.hexdigest()


@given(runs, runs)
def test_other_contents_have_another_checksum(one: list[tuple[bool, int]], other: list[tuple[bool, int]]) -> None:
    same = contents(one) == contents(other)
    assert (digest_of(one, holes=True) == digest_of(other, holes=True)) is same


def test_where_zeros_are_matters() -> None:
    zeros_first, data_first = Digest(), Digest()
    zeros_first.hole(B)
    zeros_first.data(b"x" * B)
    data_first.data(b"x" * B)
    data_first.hole(B)
    assert zeros_first.hexdigest() != data_first.hexdigest()

"""Holes that are copied over what an earlier owner left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.hypervisor.streams import cut_hole

LENGTH = 200


@st.composite
def stretches(draw: st.DrawFn) -> list[tuple[int, int]]:
    """In order, and apart from each other."""
    ends = sorted(draw(st.sets(st.integers(0, LENGTH), max_size=12)))
    return list(zip(ends[::2], ends[1::2], strict=False))


@given(stretches(), st.integers(0, LENGTH), st.integers(0, LENGTH))
def test_zeros_are_written_where_something_is_and_nowhere_else(
    there: list[tuple[int, int]], one: int, other: int
) -> None:
    begin, end = min(one, other), max(one, other)
    parts = list(cut_hole(begin, end, there))
    assert all(length > 0 for length, _ in parts)
    written = [zeros for length, zeros in parts for _ in range(length)]
    assert written == [any(first <= byte < last for first, last in there) for byte in range(begin, end)]

"""A post-copy that stands still: helped on, in time, and only ever forward."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tasks.model.convergence import Forward
from tasks.planning.post_copy import LEAST_TRIES, REFUSED, STILL_S, TCP_S, Help, decide_help, heard

LIMIT_S = 600.0


class Watcher:
    """Looks once a second; what is remembered goes through JSON each time, as when another worker adopts it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.kept, self.now = Forward(), now
        self.done: list[tuple[float, Help]] = []

    def look(self, remaining: int | None = 5, *, broken: bool = False, calling: bool = False) -> Help:
        kept = Forward.model_validate_json(self.kept.model_dump_json())
        self.kept, what = decide_help(
            kept, limit_s=LIMIT_S, remaining=remaining, broken=broken, calling=calling, now=self.now
        )
        if what is not Help.WAIT:
            self.done.append((self.now, what))
        self.now += 1
        return what

    def wait_for(self, what: Help, *, broken: bool, most_s: int = 2000) -> float:
        began = self.now
        for _ in range(most_s):
            if self.look(broken=broken) is what:
                return self.now - 1 - began
        raise AssertionError(f"no {what}: {self.done}")


def test_what_moves_is_left_alone() -> None:
    watcher = Watcher()
    for remaining in range(5000, 0, -1):
        assert watcher.look(remaining, broken=remaining % 2 == 0) is Help.WAIT


def test_nothing_is_done_while_libvirt_itself_is_at_it_and_then_a_person_is_asked() -> None:
    watcher = Watcher()
    assert watcher.wait_for(Help.ASK, broken=False) == LIMIT_S + 1
    assert len(watcher.done) == 1


def test_a_broken_one_is_resumed_with_growing_pauses() -> None:
    watcher = Watcher()
    watcher.wait_for(Help.ASK, broken=True)
    times = [at for at, what in watcher.done if what is Help.RESUME]
    assert times[0] == 1000 + STILL_S
    assert [b - a for a, b in pairwise(times)][:5] == [5, 10, 20, 40, 60]
    assert {what for _, what in watcher.done} == {Help.RESUME, Help.ASK}


def test_a_connection_is_cut_only_when_tcp_had_its_time_and_the_destination_was_reached() -> None:
    watcher = Watcher()
    watcher.wait_for(Help.RESUME, broken=True)
    watcher.kept = heard(watcher.kept, "PEER_UNREACHABLE", "no route", watcher.now)
    watcher.wait_for(Help.RESUME, broken=True)
    refused = watcher.now
    watcher.kept = heard(watcher.kept, REFUSED, "still running", watcher.now)
    watcher.wait_for(Help.RESUME, broken=True)
    watcher.kept = heard(watcher.kept, REFUSED, "still running", watcher.now)
    watcher.wait_for(Help.CUT, broken=True)
    assert TCP_S < watcher.now - refused < TCP_S + 65
    assert watcher.wait_for(Help.RESUME, broken=True) <= 3


def test_a_link_that_is_lost_again_after_a_refusal_is_not_cut() -> None:
    watcher = Watcher()
    for code in (REFUSED, "PEER_UNREACHABLE") * 5:
        watcher.wait_for(Help.RESUME, broken=True)
        watcher.kept = heard(watcher.kept, code, code, watcher.now)
    assert Help.CUT not in {what for _, what in watcher.done}


def test_what_a_call_is_at_is_left_alone_until_time_is_over() -> None:
    watcher = Watcher()
    for _ in range(LEAST_TRIES):
        watcher.wait_for(Help.RESUME, broken=True)
    calls = [watcher.look(broken=True, calling=True) for _ in range(700)]
    assert set(calls) == {Help.WAIT, Help.ASK}


def test_who_finds_it_standing_still_for_long_helps_it_before_asking() -> None:
    """Every worker was down for a day."""
    watcher = Watcher()
    watcher.look(broken=True)
    watcher.now += 86_400
    assert watcher.look(broken=True) is Help.RESUME
    watcher.wait_for(Help.ASK, broken=True)
    assert sum(what is Help.RESUME for _, what in watcher.done) == LEAST_TRIES


def test_when_it_moves_on_the_tries_begin_anew() -> None:
    watcher = Watcher()
    watcher.wait_for(Help.RESUME, broken=True)
    assert watcher.kept.tries == 1
    watcher.look(4)
    assert (watcher.kept.tries, watcher.kept.message) == (0, "")


@given(st.lists(st.tuples(st.sampled_from([5, 5, 5, 5, 4, None]), st.booleans(), st.booleans()), max_size=900))
def test_bounded_whatever_is_seen(looks: list[tuple[int | None, bool, bool]]) -> None:
    watcher = Watcher()
    for remaining, broken, calling in looks:
        before = watcher.kept
        what = watcher.look(remaining, broken=broken, calling=calling)
        if what is Help.CUT:
            assert before.refused_at
        if what in (Help.CUT, Help.RESUME):
            assert broken
            assert not calling
            assert watcher.now - 1 - before.moved_at >= STILL_S

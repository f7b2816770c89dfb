"""The doctor's results as people see them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tasks.model.doctor import CheckResult, Diagnosis, Verdict
from tasks.rendering import tables
from tasks.rendering.doctor import print_diagnosis

HINT = "redis-cli CONFIG SET maxmemory-policy noeviction; and 'maxmemory-policy noeviction' in redis.conf, " * 2


def result(verdict: Verdict, code: str, about: str, hint: str = "") -> CheckResult:
    return CheckResult(code=code, verdict=verdict, about=about, message="some words about it " * 6, hint=hint)


FOUND = Diagnosis(
    healthy=False,
    reachable=True,
    results=(
        result(Verdict.FAILED, "REDIS_EVICTS", "redis", HINT),
        *(result(Verdict.OK, "PAIR_WORKS", f"h{number} → h{number + 1}") for number in range(50)),
        result(Verdict.WARNING, "POOL_LOW", "alpha", "free some"),
        result(Verdict.OK, "REDIS_KEEPS", "redis"),
    ),
)


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(tables, "console", Console(file=out, width=80, force_terminal=True, color_system=None))
    print_diagnosis(FOUND)
    lines = out.getvalue().splitlines()
    assert max(len(line) for line in lines if HINT.strip() not in line) <= 80
    assert f"→ {HINT}" in out.getvalue()
    assert "PAIR_WORKS 50 times: h0 → h1, h1 → h2" in lines[0]
    starts = [line.split()[0] for line in lines if line[0] != " "]
    assert starts == ["ok", "ok", "warning", "failed", "51"]
    assert lines[-1] == "51 ok, 1 warning, 1 failed"


def test_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "console", Console(width=80, force_terminal=False))
    print_diagnosis(FOUND)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[-3].startswith("failed   REDIS_EVICTS redis: some words")

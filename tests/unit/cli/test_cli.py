"""The command line against a client in memory: what is printed, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cli
from tasks.model.cordon import Cordon
from tasks.model.domain import DomainState, DomainView
from tasks.model.errors import HostUnreachable, InvalidRequest, StoreUnavailable, UnknownMigration
from tasks.model.event import Told, event_of
from tasks.model.finding import Finding, Severity
from tasks.model.host import HostStatus
from tasks.model.plan import Plan
from tasks.model.request import Method, MigrationRequest, Storage
from tasks.model.run import Channel, ErrorInfo, Progress, RunRecord, State, StepName, StepTiming

REQUEST = MigrationRequest(vm="web-7", destination="beta")


def record(state: State = State.QUEUED, **changes: Any) -> RunRecord:
    made = RunRecord(
        id="m-1", request=REQUEST, fingerprint="f", vm="web-7", source="alpha", destination="beta", state=state
    )
    return made.model_copy(update=changes)


class MemoryClient:
    """What cli.py asks of a client."""

    def __init__(self) -> None:
        self.history = [record()]
        self.error: Exception | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.findings: tuple[Finding, ...] = ()

    def _answer(self, *asked: Any) -> RunRecord:
        self.asked.append(asked)
        if self.error:
            raise self.error
        return self.history[-1]

    def submit(self, values: dict[str, Any], *, run_id: str | None = None) -> RunRecord:
        return self._answer("submit", values, run_id)

    def show(self, run_id: str) -> RunRecord:
        return self._answer("show", run_id)

    def find_drain(self, drain_id: str) -> None:
        """It knows of no drains."""

    def cancel(self, run_id: str) -> RunRecord:
        return self._answer("cancel", run_id)

    def retry(self, run_id: str) -> RunRecord:
        return self._answer("retry", run_id)

    def watch(self, run_id: str) -> Iterator[RunRecord]:
        self._answer("watch", run_id)
        yield from self.history

    def list_runs(self, *, limit: int) -> list[RunRecord]:
        self._answer("list", limit)
        return self.history

    def plan(self, values: dict[str, Any]) -> Plan:
        self._answer("plan", values)
        allowed = not self.findings
        return Plan(vm="web-7", destination="beta", source="alpha", allowed=allowed, method=Method.LIVE,
                    storage=Storage.SHARED, findings=self.findings)  # fmt: skip

    def hosts(self) -> list[HostStatus]:
        self._answer("hosts")
        return [HostStatus("alpha", reachable=False, error="no route", max_outgoing=2, outgoing=1)]

    def vms(self, host: str | None) -> tuple[list[DomainView], dict[str, str]]:
        self._answer("vms", host)
        view = DomainView("alpha", "web-7", "u", DomainState.RUNNING, 1, True, True, False, False, 1 << 20, 2)
        return [view], {"beta": "no route"}

    def cordon(self, host: str, reason: str) -> Cordon:
        self._answer("cordon", host, reason)
        return Cordon(host=host, reason=reason, at=1.0)

    def uncordon(self, host: str) -> bool:
        self._answer("uncordon", host)
        return host == "beta"

    def events_lost(self, after: str) -> bool:
        self._answer("events_lost", after)
        return after == "7-0"

    def events(self, *, after: str, last: int, follow: bool) -> Iterator[Told]:
        self._answer("events", after, last, follow)
        for previous, state in ((None, State.QUEUED), (State.QUEUED, State.CHECKING), (State.CHECKING, State.REFUSED)):
            error = ErrorInfo(code="HOST_CORDONED", message="beta is cordoned") if state is State.REFUSED else None
            yield Told(position="9-0", at=1.0, event=event_of(record(state, error=error), previous))

    def prune(self) -> list[str]:
        self._answer("prune")
        return ["old"]

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryClient:
    made = MemoryClient()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "make_client", lambda _settings: made)
    return made


def run(*arguments: str) -> int:
    """The whole program, its error handling included."""
    return cli.run(lambda: cli.app(list(arguments)))


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.SUCCEEDED, 0), (State.FAILED, 1), (State.REFUSED, 3), (State.NEEDS_ATTENTION, 4), (State.CANCELLED, 6)],
)
@pytest.mark.parametrize("command", [["watch", "m-1"], ["migrate", "web-7", "--to", "beta", "--wait"]])
def test_the_end_decides_the_exit_code(client: MemoryClient, command: list[str], state: State, code: int) -> None:
    client.history = [record(State.TRANSFERRING), record(state)]
    assert run(*command) == code


def test_events(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("events") == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("m-1  web-7: alpha → beta  queued")
    assert second.endswith("m-1  web-7: alpha → beta  queued → checking")
    assert third.endswith("checking → refused  HOST_CORDONED: beta is cordoned")
    assert run("events", "--json", "--after", "7-0", "--follow") == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["event"]["state"] for line in out.splitlines()] == ["queued", "checking", "refused"]
    assert "no longer kept" in err
    assert client.asked == [("events", "", 50, False), ("events_lost", "7-0"), ("events", "7-0", 50, True)]


def test_cordon_and_uncordon(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cordon", "beta", "--reason", "kernel update") == 0
    assert run("cordon", "beta") == 0
    assert run("uncordon", "beta") == 0
    assert run("uncordon", "gamma") == 0
    assert client.asked[:2] == [("cordon", "beta", "kernel update"), ("cordon", "beta", "")]
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "beta is cordoned: kernel update",
        "beta is cordoned",
        "beta takes VMs again",
        "gamma was not cordoned",
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("UNKNOWN_HOST", "delta is not in the inventory", "known hosts: alpha"), 2),
        (UnknownMigration("UNKNOWN_ID", "no such migration", "vmferry list"), 2),
        (StoreUnavailable("REDIS_UNREACHABLE", "Redis does not answer", "start it"), 5),
        (HostUnreachable("HOST_UNREACHABLE", "beta is silent", "ping it"), 5),
        (RuntimeError("a bug\nover two lines"), 1),
    ],
)
@pytest.mark.parametrize("command", [["show", "x"], ["plan", "web-7", "--to", "beta"], ["hosts"], ["cancel", "x"]])
def test_errors_are_one_line_with_a_hint(
    client: MemoryClient, capsys: pytest.CaptureFixture[str], command: list[str], error: Exception, code: int
) -> None:
    client.error = error
    assert run(*command) == code
    out, err = capsys.readouterr()
    first, second = err.strip().splitlines()
    assert first.startswith("error ")
    assert second.startswith("hint: ")
    assert out == ""


def test_json_is_the_model_and_nothing_else(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.history = [record(State.TRANSFERRING), record(State.SUCCEEDED)]
    assert run("migrate", "web-7", "--to", "beta", "--wait", "--json") == 0
    assert RunRecord.model_validate_json(capsys.readouterr().out) == client.history[-1]
    for command, kind in [
        (["list"], list),
        (["hosts"], list),
        (["vms"], dict),
        (["show", "m-1"], dict),
        (["prune"], list),
    ]:
        assert run(*command, "--json") == 0
        assert isinstance(json.loads(capsys.readouterr().out), kind)


def test_plan_refused_is_exit_3_and_says_why(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.findings = (
        Finding(code="NO_ROOM", severity=Severity.BLOCKER, message="beta has 1 GiB free", hint="free some"),
    )
    assert run("plan", "web-7", "--to", "beta") == 3
    out = capsys.readouterr().out
    for words in ("would be refused", "NO_ROOM", "beta has 1 GiB free", "free some"):
        assert words in out


def test_a_pipe_gets_one_line_for_each_change(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    moving = Progress(memory=Channel(total_bytes=2**30, processed_bytes=2**20, remaining_bytes=2**29))
    client.history = [
        record(State.CHECKING),
        record(State.CHECKING),
        record(State.TRANSFERRING, progress=moving),
        record(State.FAILED, error=ErrorInfo(code="X", message="cable cut"), submitted_at=1.0, finished_at=3.5),
    ]
    run("watch", "m-1")
    assert capsys.readouterr().out.splitlines() == [
        "web-7: alpha → beta: checking",
        "web-7: alpha → beta: transferring",
        "web-7: alpha → beta: failed after 2.50 s (X: cable cut)",
    ]


def test_list_says_why_a_migration_waits(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.history = [record(waiting_for="migration m-0 holds the lock of this VM")]
    run("list")
    assert "migration m-0 holds the lock of this VM" in capsys.readouterr().out


def test_show_has_what_a_person_asks_for(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.history = [
        record(
            State.NEEDS_ATTENTION,
            error=ErrorInfo(code="NEEDS_ATTENTION_UNCLEAR", message="both off", hint="compare them"),
            timings=(StepTiming(step=StepName.PREFLIGHT, attempt=1, started_at=1.0, ended_at=1.25),),
            created=("definition of web-7 on beta",),
        )
    ]
    run("show", "m-1")
    out = capsys.readouterr().out
    for words in ("needs_attention", "both off", "compare them", "preflight\t1\t250 ms", "definition of web-7 on beta"):
        assert words in out


def test_what_is_asked_arrives(client: MemoryClient) -> None:
    run("migrate", "web-7", "--to", "beta", "--from", "alpha", "--method", "live", "--id", "m-1", "--label", "a=b")
    values = {"vm": "web-7", "destination": "beta", "source": "alpha", "method": "live", "storage": "auto"}
    assert client.asked == [("submit", values | {"policy": "default", "labels": {"a": "b"}}, "m-1")]


@pytest.mark.parametrize(
    "bad", [["migrate", "web-7"], ["nonsense"], ["show"], ["migrate", "a", "--to", "b", "--label", "x"]]
)
def test_wrong_usage_is_exit_2(client: MemoryClient, bad: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*bad) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_interrupted_waiting_leaves_the_migration_alone(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_run_id: str) -> Iterator[RunRecord]:
        yield record(State.TRANSFERRING)
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "watch", interrupted)
    assert run("watch", "m-1") == 130
    assert "goes on" in capsys.readouterr().err
    assert ("cancel", "m-1") not in client.asked


# -- without a client: the real configuration, the real store --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("broker_url = 3", "broker_url"),
        ("surprise = 1", "surprise"),
        ("[hosts.a]\nuri = 'ftp://x'", "hosts.a.uri"),
        ("= x", "line 1"),
    ],
)
@pytest.mark.parametrize("command", [["hosts"], ["worker"], ["beat"], ["list", "--json"]])
def test_malformed_configuration_is_exit_2_and_names_the_key(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    text: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VMFERRY_CONFIG", raising=False)
    config = tmp_path / "vmferry.toml"
    config.write_text(text)
    monkeypatch.setenv("VMFERRY_CONFIG", str(config))
    assert run(*command) == 2
    err = capsys.readouterr().err
    assert named in err
    assert "Traceback" not in err


def test_redis_that_is_away_is_exit_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "vmferry.toml"
    config.write_text('broker_url = "redis://127.0.0.1:1/0"\n[hosts.beta]\nuri = "qemu+tcp://beta/system"\n')
    monkeypatch.setenv("VMFERRY_CONFIG", str(config))
    assert run("list") == 5
    assert run("migrate", "web-7", "--to", "beta") == 5
    assert "error REDIS_UNREACHABLE" in capsys.readouterr().err


def test_inspect_reads_files_and_reports_bad_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.xml", tmp_path / "bad.xml"
    good.write_text(
        "<domain type='kvm'><name>a</name><devices><disk type='file' device='disk'><source file='/img/a.qcow2'/>"
        "<target dev='vda'/></disk></devices></domain>"
    )
    bad.write_text("<domain")
    assert run("inspect", str(good), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {"kind", "value", "xpath", "known"} == set(found[0])
    assert any(r["value"] == "/img/a.qcow2" and r["known"] for r in found)
    assert run("inspect", str(good), str(bad), str(tmp_path / "absent.xml"), "--json") == 2
    out, err = capsys.readouterr()
    assert list(json.loads(out)) == [str(good)]
    assert err.count("error ") == 2


@pytest.mark.parametrize("encoding", ["iso-8859-1", "utf-16", "utf-8-sig"])
def test_inspect_reads_the_encoding_that_a_file_declares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    declared = f"<?xml version='1.0' encoding='{encoding.removesuffix('-sig')}'?>"
    file, wrong = tmp_path / "a.xml", tmp_path / "b.xml"
    xml = f"{declared}<domain type='kvm'><os><kernel>/böot/k</kernel></os></domain>"
    file.write_bytes(xml.encode(encoding))
    wrong.write_bytes(xml.replace(encoding.removesuffix("-sig"), "no-such").encode())
    assert run("inspect", str(file), "--json") == 0
    assert [r["value"] for r in json.loads(capsys.readouterr().out)] == ["/böot/k"]
    assert run("inspect", str(wrong)) == 2
    assert "no encoding no-such" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--pair", "alpha"], ["--pair", "alpha:alpha"], ["--to", "delta"]])
def test_the_doctor_is_told_nonsense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    config = tmp_path / "vmferry.toml"
    config.write_text('[hosts.alpha]\nuri = "qemu+tcp://alpha/system"\n')
    monkeypatch.setenv("VMFERRY_CONFIG", str(config))
    assert run("doctor", *options) == 2
    assert "hint: " in capsys.readouterr().err


def test_the_doctor_reports_everything_when_nothing_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "vmferry.toml"
    config.write_text(
        'broker_url = "redis://:secret@127.0.0.1:1/0"\n[hosts.alpha]\nuri = "qemu+tcp://127.0.0.1:1/system"\n'
    )
    monkeypatch.setenv("VMFERRY_CONFIG", str(config))
    assert run("doctor", "--json") == 5
    out = capsys.readouterr().out
    failed = {result["code"] for result in json.loads(out)["results"] if result["verdict"] == "failed"}
    assert failed == {"REDIS_UNREACHABLE", "HOST_UNREACHABLE"}
    assert "secret" not in out

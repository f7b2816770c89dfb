"""The command line: parse, one call, render. Exit codes stand in one table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tasks.commands.completion import complete_host
from tasks.commands.doctor import doctor
from tasks.commands.drains import drain, drains, parse_labels, pause, resume, show_drain
from tasks.commands.drains import follow as follow_drain
from tasks.commands.options import (
    AcceptOption,
    DataPathOption,
    Destination,
    DeviceOption,
    MethodOption,
    PolicyOption,
    PoolOption,
    RemedyOption,
    ShutDownOption,
    SizeOption,
    Source,
    SourceDisksOption,
    StorageOption,
    VerifyOption,
    request_values,
)
from tasks.commands.programs import beat, flower, worker
from tasks.commands.report import report
from tasks.commands.times import DeadlineOption, NotBeforeOption, WindowOption, ZoneOption, times_of
from tasks.commands.webhooks import webhooks
from tasks.model.drain import DrainRecord
from tasks.model.errors import (
    ConfigurationError,
    HypervisorError,
    InvalidRequest,
    StoreUnavailable,
    UnknownMigration,
    VmferryError,
)
from tasks.model.run import RunRecord, State

if TYPE_CHECKING:
    from config.settings import Settings
    from tasks.client import Client

EXIT_OF_STATE: Final = {
    State.SUCCEEDED: 0,
    State.FAILED: 1,
    State.REFUSED: 3,
    State.NEEDS_ATTENTION: 4,
    State.CANCELLED: 6,
}
EXIT_OF_ERROR: Final[tuple[tuple[type[VmferryError], int], ...]] = (
    (ConfigurationError, 2),
    (InvalidRequest, 2),
    (UnknownMigration, 2),
    (StoreUnavailable, 5),
    (HypervisorError, 5),
)
EXIT_INTERNAL: Final = 1
EXIT_REFUSED: Final = 3
EXIT_INTERRUPTED: Final = 130

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Moves KVM virtual machines between hosts."
)
_options: dict[str, Any] = {"debug": False, "config": None}

JsonOption = Annotated[bool, typer.Option("--json", help="Print the model as JSON and nothing else.")]
RunId = Annotated[str, typer.Argument(metavar="ID", help="Id of the migration, or of a drain.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vmferry {version('vmferry')}")
        raise typer.Exit


@app.callback()
def _global(
    config: Annotated[Path | None, typer.Option(help="Else VMFERRY_CONFIG, ./vmferry.toml, …")] = None,
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
    _version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    _options.update(debug=debug, config=config)
    if config is not None:
        os.environ["VMFERRY_CONFIG"] = str(config)  # for the programs that this one starts


# -- edges -------------------------------------------------------------------


def exit_code_of(error: BaseException) -> int:
    """The exit code that an error ends the program with."""
    return next((code for kind, code in EXIT_OF_ERROR if isinstance(error, kind)), EXIT_INTERNAL)


def complain(error: BaseException) -> None:
    """One clear line, and a hint when there is one."""
    if isinstance(error, VmferryError):
        typer.secho(f"error {error.code}: {error.message}", err=True, fg="red")
        if error.hint:
            typer.secho(f"hint: {error.hint}", err=True)
        return
    text = " ".join(str(error).split()) or type(error).__name__
    typer.secho(f"error INTERNAL_ERROR: {type(error).__name__}: {text}", err=True, fg="red")
    typer.secho("hint: run it again with --debug for the traceback, and report it", err=True)


def make_client(settings: Settings) -> Client:
    """The client of the queue; tests put another one here."""
    from tasks.client import Client

    return Client(settings)


def _settings() -> Settings:
    from config.settings import load_settings

    return load_settings()


@contextmanager
def _client() -> Iterator[Client]:
    client = make_client(_settings())
    try:
        yield client
    finally:
        client.close()


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _show_record(record: RunRecord, as_json: bool) -> None:
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
        return
    from tasks.rendering.records import print_record

    print_record(record)


# -- looking -----------------------------------------------------------------


@app.command()
def hosts(as_json: JsonOption = False) -> None:
    """The inventory: reachable or not, versions, memory, VMs, pools, limits in use."""
    from tasks.rendering.hosts import hosts_as_json, print_hosts

    with _client() as client:
        statuses = client.hosts()
    _print_json(hosts_as_json(statuses)) if as_json else print_hosts(statuses)


@app.command()
def cordon(
    host: Annotated[str, typer.Argument(autocompletion=complete_host)],
    reason: Annotated[str, typer.Option(help="Shown wherever a VM is refused because of it.")] = "",
) -> None:
    """Let nothing move to a host, until it is uncordoned; what is on its way there arrives."""
    with _client() as client:
        typer.echo(f"{host} is {client.cordon(host, reason).words}")


@app.command()
def uncordon(host: Annotated[str, typer.Argument(autocompletion=complete_host)]) -> None:
    """Let VMs move to a host again."""
    with _client() as client:
        lifted = client.uncordon(host)
    typer.echo(f"{host} takes VMs again" if lifted else f"{host} was not cordoned")


@app.command()
def vms(
    host: Annotated[str | None, typer.Argument(help="Only this host.", autocompletion=complete_host)] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only VMs in this state; may be repeated.")] = None,
    match: Annotated[str, typer.Option(metavar="PATTERN", help="Only VMs whose name matches, such as 'web-*'.")] = "",
    as_json: JsonOption = False,
) -> None:
    """VMs side by side."""
    from tasks.rendering.hosts import print_vms, select_vms, vms_as_json

    select_vms([], states=state or ())  # a misspelt state is said at once
    with _client() as client:
        views, errors = client.vms(host)
    views = select_vms(views, states=state or (), match=match)
    _print_json(vms_as_json(views, errors)) if as_json else print_vms(views, errors)


@app.command()
def plan(
    vm: str,
    to: Destination,
    source: Source = None,
    method: MethodOption = "auto",
    storage: StorageOption = "auto",
    pool: PoolOption = None,
    device: DeviceOption = None,
    size: SizeOption = None,
    accept: AcceptOption = None,
    verify: VerifyOption = "auto",
    remedy: RemedyOption = None,
    source_disks: SourceDisksOption = "keep",
    shut_down: ShutDownOption = False,
    data_path: DataPathOption = "auto",
    policy: PolicyOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Dry run: method, storage, findings, steps; changes nothing. Exit 3 when it would be refused."""
    from tasks.rendering.plans import print_plan

    with _client() as client:
        how = request_values(
            *(vm, to, source, method, storage, policy, pool, device, size, accept, verify, remedy),
            *(source_disks, shut_down, data_path),
        )
        made = client.plan(how)
    typer.echo(made.model_dump_json(indent=2)) if as_json else print_plan(made)
    raise typer.Exit(0 if made.allowed else EXIT_REFUSED)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Migrations, the newest first; queued ones say why they wait."""
    from tasks.rendering.records import print_list

    with _client() as client:
        records = client.list_runs(limit=limit)
    _print_json([r.model_dump(mode="json") for r in records]) if as_json else print_list(records)


@app.command()
def show(run_id: RunId, as_json: JsonOption = False) -> None:
    """One migration's run record, or one drain's."""
    with _client() as client:
        found = client.find_drain(run_id)
        _show_record(client.show(run_id), as_json) if found is None else show_drain(found, as_json)


@app.command()
def watch(run_id: RunId, as_json: JsonOption = False) -> None:
    """Follow a migration, or a drain, to its end; the exit code tells how it ended."""
    with _client() as client:
        follow = _follow if client.find_drain(run_id) is None else follow_drain
        follow(client, run_id, as_json)


@app.command()
def events(
    after: Annotated[str, typer.Option(metavar="POSITION", help="Only what came after it; 0: everything.")] = "",
    last: Annotated[int, typer.Option(min=0, help="Without --after: so many of the newest.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each as it happens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Changes of state, as other systems are told of them."""
    from tasks.rendering.events import event_line

    with _client() as client:
        if after and client.events_lost(after):
            typer.secho(f"warning: the oldest events after {after} are no longer kept (events_kept)", err=True)
        for told in client.events(after=after, last=last, follow=follow):
            print(told.model_dump_json() if as_json else event_line(told), flush=True)


app.command()(doctor)
app.command()(drains)
app.command()(report)
app.command()(webhooks)


@app.command()
def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Domain XML files; - for standard input.")],
    as_json: JsonOption = False,
) -> None:
    """Every host resource that domain definitions name; touches no host."""
    from tasks.rendering.resources import inspect_files, print_resources

    found, failed = inspect_files(files)
    if as_json:
        only = next(iter(found.values()), []) if len(files) == 1 else found
        _print_json(only)
    else:
        print_resources(found)
    for error in failed:
        complain(error)
    raise typer.Exit(2 if failed else 0)


# -- acting ------------------------------------------------------------------


@app.command()
def migrate(
    vm: str,
    to: Destination,
    source: Source = None,
    method: MethodOption = "auto",
    storage: StorageOption = "auto",
    pool: PoolOption = None,
    device: DeviceOption = None,
    size: SizeOption = None,
    accept: AcceptOption = None,
    verify: VerifyOption = "auto",
    remedy: RemedyOption = None,
    source_disks: SourceDisksOption = "keep",
    shut_down: ShutDownOption = False,
    data_path: DataPathOption = "auto",
    policy: PolicyOption = "default",
    priority: Annotated[int, typer.Option(help="The higher, the earlier it starts when several wait.")] = 0,
    window: WindowOption = None,
    time_zone: ZoneOption = "UTC",
    not_before: NotBeforeOption = None,
    deadline: DeadlineOption = None,
    run_id: Annotated[str | None, typer.Option("--id", help="Idempotency key; made up when absent.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, kept in the record.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Enqueue a migration; with --wait the exit code tells how it ended."""
    values = request_values(
        *(vm, to, source, method, storage, policy, pool, device, size, accept, verify, remedy),
        *(source_disks, shut_down, data_path),
    ) | {"labels": parse_labels(label or [])}
    values |= {"priority": priority} if priority else {}
    values |= times_of(window, time_zone, not_before, deadline)
    with _client() as client:
        record = client.submit(values, run_id=run_id)
        if wait:
            _follow(client, record.id, as_json)
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    else:
        typer.echo(f"{record.id} {record.state}: follow it with: vmferry watch {record.id}")


def _follow(client: Client, run_id: str, as_json: bool) -> None:
    """Show progress to the end, then leave with the exit code of the state."""
    from tasks.rendering.progress import follow

    try:
        record = follow(client.watch(run_id), quiet=as_json)
    except KeyboardInterrupt:
        typer.echo(f"\n{run_id} goes on: vmferry watch {run_id}, or vmferry cancel {run_id}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    raise typer.Exit(EXIT_OF_STATE[record.state])


@app.command()
def cancel(run_id: RunId, as_json: JsonOption = False) -> None:
    """Cancel a migration and roll it back, or a drain with all of its own; returns before that has happened."""
    with _client() as client:
        drained = client.find_drain(run_id)
        record = client.cancel(run_id) if drained is None else client.cancel_drain(run_id)
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    elif isinstance(record, DrainRecord):
        typer.echo(f"{run_id} {record.state}")
    else:
        typer.echo(f"{run_id} {record.state}" + ("" if record.is_terminal else ", being cancelled"))


@app.command()
def retry(run_id: RunId, as_json: JsonOption = False) -> None:
    """Try a migration that did not succeed again, under its id; or what a drain left behind."""
    with _client() as client:
        drained = client.find_drain(run_id)
        record = client.retry(run_id) if drained is None else client.retry_drain(run_id)
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    elif isinstance(record, DrainRecord):
        typer.echo(f"{run_id} {record.state}, round {record.round}: vmferry watch {run_id}")
    else:
        typer.echo(f"{run_id} {record.state}, attempt {record.attempt}: vmferry watch {run_id}")


app.command()(drain)
app.command()(pause)
app.command()(resume)


@app.command()
def prune(as_json: JsonOption = False) -> None:
    """Forget finished records past their retention."""
    with _client() as client:
        gone = client.prune()
    _print_json(gone) if as_json else typer.echo(f"{len(gone)} forgotten")


# -- the programs of Celery --------------------------------------------------


app.command()(worker)
app.command()(beat)
app.command()(flower)


def run(program: Callable[[], None]) -> int:
    """Run the program; whatever goes wrong is one line and an exit code."""
    try:
        program()
    except SystemExit as end:
        return int(end.code or 0)
    except VmferryError as error:
        if _options["debug"]:
            raise
        complain(error)
        return exit_code_of(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if _options["debug"]:
            raise
        complain(error)
        return EXIT_INTERNAL
    return 0


def main() -> None:
    """The ``vmferry`` program."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()

"""``vmferry drain`` and ``vmferry drains``, and what the other commands do with a drain's id."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tasks.commands.completion import complete_host, complete_policy
from tasks.commands.options import DataPathOption, SourceDisksOption, VerifyOption
from tasks.commands.times import DeadlineOption, NotBeforeOption, WindowOption, ZoneOption, times_of
from tasks.model.drain import DrainRecord, DrainState, Fate
from tasks.model.errors import InvalidRequest

if TYPE_CHECKING:
    from tasks.client import Client

EXIT_OF_DRAIN: Final = {
    DrainState.EMPTY: 0,
    DrainState.RETURNED: 0,
    DrainState.PARTIAL: 1,
    DrainState.REFUSED: 3,
    DrainState.CANCELLED: 6,
}
EXIT_INTERRUPTED: Final = 130
JsonOption = Annotated[bool, typer.Option("--json", help="Print the model as JSON and nothing else.")]


def drain(
    host: Annotated[str, typer.Argument(help="Host to be emptied.", autocompletion=complete_host)],
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Only to this host; may be repeated.", autocompletion=complete_host),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say where each VM would go, and change nothing.")] = False,
    back: Annotated[
        bool, typer.Option("--return", help="Bring back the VMs that the last drain of this host moved away.")
    ] = False,
    return_of: Annotated[
        str | None, typer.Option("--return-of", metavar="ID", help="The same, of another drain of this host.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Move nothing unless every VM can move.")] = False,
    shut_off: Annotated[str, typer.Option(help="VMs that are shut off: leave, or move.")] = "leave",
    leave: Annotated[list[str] | None, typer.Option(metavar="VM", help="A VM that stays; may be repeated.")] = None,
    may_shut_off: Annotated[
        list[str] | None,
        typer.Option(metavar="VM", help="A VM that is asked to shut down when it cannot move live; may be repeated."),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Named policy of the configuration.", autocompletion=complete_policy)
    ] = "default",
    accept: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="A finding that shall not stand in any VM's way.")
    ] = None,
    remedy: Annotated[list[str] | None, typer.Option(metavar="NAME", help="As for vmferry migrate.")] = None,
    verify: VerifyOption = "auto",
    source_disks: SourceDisksOption = "keep",
    data_path: DataPathOption = "auto",
    priority: Annotated[int, typer.Option(help="The higher, the earlier its migrations start.")] = 0,
    window: WindowOption = None,
    time_zone: ZoneOption = "UTC",
    not_before: NotBeforeOption = None,
    deadline: DeadlineOption = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, kept in all records.")] = None,
    drain_id: Annotated[str | None, typer.Option("--id", help="Idempotency key; made up when absent.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Empty a host: cordon it, and move its VMs to others; it is empty only when a last look finds nothing left.

    With --return its VMs come back instead.
    """
    from tasks.rendering.drains import print_drain_plan

    values: dict[str, Any] = {"host": host, "strict": strict, "shut_off": shut_off, "policy": policy}
    values |= {"priority": priority, "verify": verify, "source_disks": source_disks, "data_path": data_path}
    more = {"to": to, "leave": leave, "accept": accept, "remedies": remedy, "labels": parse_labels(label or [])}
    more["may_shut_off"] = may_shut_off
    values |= {name: value for name, value in more.items() if value}
    values |= times_of(window, time_zone, not_before, deadline)
    with closing(_client()) as client:
        if back or return_of:
            values["returns"] = return_of or client.last_drain_of(host).id
        if dry_run:
            plan = client.plan_drain(values)
            typer.echo(plan.model_dump_json(indent=2)) if as_json else print_drain_plan(plan)
            stays = any(vm.fate is Fate.STAYS or vm.late for vm in plan.vms)
            raise typer.Exit(EXIT_OF_DRAIN[DrainState.REFUSED] if stays else 0)
        record = client.drain(values, drain_id=drain_id)
        if wait:
            follow(client, record.id, as_json)
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    else:
        typer.echo(f"{record.id} {record.state}: follow it with: vmferry watch {record.id}")


def drains(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    recurring: Annotated[
        bool, typer.Option("--recurring", help="Those of the configuration alone, and when they begin.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Drains, the newest first; below them those of the configuration, and when they begin."""
    from tasks.rendering.drains import print_drains
    from tasks.rendering.recurring import print_recurring

    with closing(_client()) as client:
        coming = client.recurring_drains() if recurring or not as_json else []
        records = [] if recurring else client.list_drains(limit=limit)
    if as_json:
        import json

        shown = [one.model_dump(mode="json") for one in (coming if recurring else records)]
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    if not recurring:
        print_drains(records)
    if recurring or coming:
        print_recurring(coming)


def pause(drain_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the drain.")]) -> None:
    """Pause a drain: what is under way arrives, nothing new starts."""
    with closing(_client()) as client:
        record = client.pause_drain(drain_id)
    typer.echo(f"{drain_id} {record.state}: go on with: vmferry resume {drain_id}")


def resume(drain_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the drain.")]) -> None:
    """Go on with a drain that is paused."""
    with closing(_client()) as client:
        record = client.resume_drain(drain_id)
    typer.echo(f"{drain_id} {record.state}: follow it with: vmferry watch {drain_id}")


def show_drain(record: DrainRecord, as_json: bool) -> None:
    """Print one."""
    from tasks.rendering.drains import print_drain

    typer.echo(record.model_dump_json(indent=2)) if as_json else print_drain(record)


def follow(client: Client, drain_id: str, as_json: bool) -> None:
    """Show it to its end, then leave with the exit code of its state."""
    from tasks.rendering.drains import follow_drain

    try:
        moments = client.watch_drain(drain_id)
        record = [moment for moment, _ in moments][-1] if as_json else follow_drain(moments)
    except KeyboardInterrupt:
        typer.echo(f"\n{drain_id} goes on: vmferry watch {drain_id}, or vmferry cancel {drain_id}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    raise typer.Exit(EXIT_OF_DRAIN[record.state])


def parse_labels(given: list[str]) -> dict[str, str]:
    """Labels as people type them.

    Raises:
        InvalidRequest: ``INVALID_REQUEST``.
    """
    pairs = [text.partition("=") for text in given]
    if any(not key or not sign for key, sign, _ in pairs):
        raise InvalidRequest("INVALID_REQUEST", f"labels must be KEY=VALUE, not {', '.join(given)}")
    return {key: value for key, _, value in pairs}


def _client() -> Client:
    from config.settings import load_settings
    from tasks.client import Client

    return Client(load_settings())

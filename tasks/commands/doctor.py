"""``vmferry doctor``."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tasks.commands.completion import complete_host
from tasks.model.errors import InvalidRequest

if TYPE_CHECKING:
    from tasks.doctor import Pair
    from tasks.model.doctor import Diagnosis

EXIT_FAILED: Final = 1
EXIT_UNREACHABLE: Final = 5
EXIT_TERMINATED: Final = 143

PairOption = Annotated[list[str] | None, typer.Option("--pair", metavar="HOST:HOST", help="Try this way only.")]
ToOption = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="HOST", help="Try the ways to this host only.", autocompletion=complete_host),
]


def doctor(
    probe: Annotated[bool, typer.Option(help="Start small probe VMs and move them between hosts.")] = True,
    pair: PairOption = None,
    to: ToOption = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Try all ways, however many hosts there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the model as JSON and nothing else.")] = False,
) -> None:
    """Check queue, workers, hosts and the ways between hosts. Exit 1 when a check failed, 5 when something is away."""
    from config.settings import load_settings
    from tasks.doctor import Wanted, examine

    settings = load_settings()
    wanted = Wanted(probe, tuple(_pair(text) for text in pair or ()), tuple(to or ()), all_pairs)
    # Probe VMs must go also when somebody ends this program.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        found = examine(settings, wanted)
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False))
    else:
        from tasks.rendering.doctor import print_diagnosis

        print_diagnosis(found)
    raise typer.Exit(exit_code(found))


def exit_code(found: Diagnosis) -> int:
    """0 when nothing failed; unreachable weighs more than anything else that failed."""
    if not found.reachable:
        return EXIT_UNREACHABLE
    return 0 if found.healthy else EXIT_FAILED


def _pair(text: str) -> Pair:
    source, colon, destination = text.partition(":")
    if not (source and colon and destination):
        raise InvalidRequest("INVALID_PAIR", f"{text} is no pair of hosts", "--pair SOURCE:DESTINATION")
    return source, destination

"""Pages that come from code: states, settings, findings. ``make docs`` writes them, a test compares them."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config import settings as settings_module
from config.recurring import RecurringDrainSettings
from config.settings import (
    FlowerSettings,
    GroupSettings,
    HostSettings,
    PlacementSettings,
    PolicySettings,
    Settings,
    WebhookSettings,
)
from config.shared import LinkSettings, PoolSettings
from tasks.model import run as run_module
from tasks.model.run import TERMINAL, TRANSITIONS, State
from tasks.planning import allocation, method, storage
from tasks.planning.doctor import DESCRIPTIONS as DOCTOR_CODES
from tasks.planning.preflight import ACCEPTABLE, DESCRIPTIONS
from tasks.planning.remedies import CODES as REMEDY_CODES
from tasks.planning.remedies import REMEDIES

FOLDER = Path(__file__).parent
SURVEY_CODES = {
    "ALREADY_ON_DESTINATION": "The VM is on the destination already.",
    "VM_REPLACED": "Another VM of that name stands where the requested one was.",
}


def attribute_docs(module: object, class_name: str) -> dict[str, str]:
    """The string below each assignment of a class, by the name assigned."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    found = {}
    for assignment, text in pairwise(body):
        if isinstance(assignment, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            target = assignment.targets[0]
            found[target.id if isinstance(target, ast.Name) else ""] = str(text.value.value)
    return found


def states_page() -> str:
    """Every state, what it means, and which may follow."""
    words = attribute_docs(run_module, "State")
    words[State.SUCCEEDED.name] = "Moved and verified; the source has let go."
    rows = [f"| `{state}` | {words.get(state.name, '')} | {_codes(sorted(TRANSITIONS[state]))} |" for state in State]
    edges = [f"    {state} --> {after}" for state in State for after in sorted(TRANSITIONS[state])]
    ends = [f"    {state} --> [*]" for state in State if state in TERMINAL]
    return "\n".join(
        [
            "# States of a migration",
            "",
            "Generated from `tasks/model/run.py`, where the table stands; every change of state is checked against it.",
            "`attempt`, `waiting_for`, `cancel_requested` and `stalled` are fields beside the state.",
            "",
            "| state | means | may be followed by |",
            "|---|---|---|",
            *rows,
            "",
            "`retry` leads from `failed`, `refused` and `cancelled` back to `queued`, and from `needs_attention` to",
            "`rolling_back`, which reads both hosts again. `needs_attention` holds the VM's lock until then.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> queued",
            *edges,
            *ends,
            "```",
            "",
        ]
    )


def _codes(names: list[State]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "—"


def settings_page() -> str:
    """Every setting with its default, its variable and its meaning."""
    return "\n".join(
        [
            "# Settings",
            "",
            "Generated from `config/settings.py`. One TOML file: `$VMFERRY_CONFIG`, else `./vmferry.toml`, else",
            "`/etc/vmferry/vmferry.toml`. The environment wins over the file; unknown keys are refused.",
            "",
            "What must not be seen in either, such as a `broker_url` with its password, can be a secret: a file",
            "`vmferry_broker_url` in `/run/secrets` (containers) or in `$CREDENTIALS_DIRECTORY` (systemd). It wins",
            "over the configuration file, and the environment over it.",
            "",
            *_table(Settings, settings_module.ENV_PREFIX, leave_out={"hosts", "policies", "flower"}),
            "",
            "## `[hosts.NAME]`",
            "",
            *_table(HostSettings, f"{settings_module.ENV_PREFIX}HOSTS__NAME__"),
            "",
            "## `[policies.NAME]`",
            "",
            "A policy called `default` always exists.",
            "",
            *_table(PolicySettings, f"{settings_module.ENV_PREFIX}POLICIES__NAME__"),
            "",
            "## `[groups.NAME]`",
            "",
            *_table(GroupSettings, f"{settings_module.ENV_PREFIX}GROUPS__NAME__"),
            "",
            "## `[links.NAME]`",
            "",
            *_table(LinkSettings, f"{settings_module.ENV_PREFIX}LINKS__NAME__"),
            "",
            "## `[recurring_drains.NAME]`",
            "",
            *_table(RecurringDrainSettings, f"{settings_module.ENV_PREFIX}RECURRING_DRAINS__NAME__"),
            "",
            "## `[pools.NAME]`",
            "",
            'A pool as libvirt calls it, or `[pools."host/pool"]` for that of one host, which goes before the other.',
            "",
            *_table(PoolSettings, f"{settings_module.ENV_PREFIX}POOLS__NAME__"),
            "",
            "## `[webhooks.NAME]`",
            "",
            *_table(WebhookSettings, f"{settings_module.ENV_PREFIX}WEBHOOKS__NAME__"),
            "",
            "## `[placement]`",
            "",
            *_table(PlacementSettings, f"{settings_module.ENV_PREFIX}PLACEMENT__"),
            "",
            "## `[flower]`",
            "",
            *_table(FlowerSettings, f"{settings_module.ENV_PREFIX}FLOWER__"),
            "",
        ]
    )


def _table(model: type[BaseModel], prefix: str, leave_out: Collection[str] = ()) -> list[str]:
    rows = [
        f"| `{name}` | {_default(field)} | {' '.join((field.description or '').split())} | `{prefix}{name.upper()}` |"
        for name, field in model.model_fields.items()
        if name not in leave_out
    ]
    return ["| key | default | means | in the environment |", "|---|---|---|---|", *rows]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "—" if value in (None, "") else f"`{value}`".replace("True", "true").replace("False", "false")


def findings_page() -> str:
    """Every code that preflight may report."""
    codes = DESCRIPTIONS | method.CODES | storage.CODES | SURVEY_CODES | REMEDY_CODES | allocation.CODES
    rows = [f"| `{code}` | {words} | {'yes' if code in ACCEPTABLE else ''} |" for code, words in sorted(codes.items())]
    return "\n".join(
        [
            "# Findings of preflight",
            "",
            "Generated from the rules in `tasks/planning`. A finding itself has the facts and what to do.",
            "",
            "Warnings may be accepted (`--accept CODE`, or `accept` of `tasks.migrate`), and so may the blockers that",
            "are marked; the record says that they were. There is no way to accept everything at once.",
            "",
            "| code | means | a blocker that may be accepted |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def remedies_page() -> str:
    """Every remedy that a request may name."""
    rows = [
        f"| `{r.name}` | {r.words} | {r.undone} | {', '.join(f'`{code}`' for code in r.codes)} |"
        for r in REMEDIES.values()
    ]
    return "\n".join(
        [
            "# Remedies",
            "",
            "Generated from `tasks/planning/remedies`. What vmferry does about a finding when the request asks for it:",
            "`--remedy NAME`, several times for several, or `remedies` of `tasks.migrate`. Nothing of it is done",
            "unasked; the hint of a finding names what would settle it. `vmferry plan` shows what would be done, every",
            "effect is journaled before it happens, and a rollback takes it back. What cannot be done is refused",
            "(`REMEDY_REFUSED`) before anything is changed.",
            "",
            "| name | what it does | after a rollback | findings that it settles |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def doctor_page() -> str:
    """Every code that the doctor may report."""
    rows = [f"| `{code}` | {words} |" for code, words in sorted(DOCTOR_CODES.items())]
    return "\n".join(
        [
            "# What `vmferry doctor` reports",
            "",
            "Generated from the checks in `tasks/planning/doctor`. A verdict is `ok`, `unseen` (it could not be looked",
            "at: neither good nor bad), `warning` or `failed`; a result itself has the facts and what to type.",
            "",
            '`--json` prints `{"healthy", "reachable", "results": [{"code", "verdict", "about", "message", "hint"}]}`.',
            "Checks are made from the machine that runs the command: run it where the workers run.",
            "",
            "| code | means |",
            "|---|---|",
            *rows,
            "",
        ]
    )


PAGES = {
    "states.md": states_page,
    "settings.md": settings_page,
    "findings.md": findings_page,
    "remedies.md": remedies_page,
    "doctor.md": doctor_page,
}


def main() -> int:
    """Write all pages."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

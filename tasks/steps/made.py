"""Objects that are known by their UUID: what the journal keeps of them, and which VMs have come to use them."""

from __future__ import annotations

from collections.abc import Callable

from tasks.model.domain import Domain, Mark
from tasks.model.errors import InvalidRequest, OperatorMustFix
from tasks.model.frozen import Frozen
from tasks.planning.domain_xml import parse_domain
from tasks.planning.object_mark import mark_uuid
from tasks.steps.run import StepRun


class Made(Frozen):
    """Whose mark the UUID was made from."""

    attempt: int
    fence: int
    directories: tuple[str, ...] = ()
    """Directories that were not there before, the innermost first."""

    def uuid(self, run: StepRun, what: str) -> str:
        """The UUID of one of the objects."""
        return mark_uuid(Mark(run.record.id, self.attempt, self.fence), what)


def users_of(run: StepRun, host: str, uses: Callable[[Domain], bool]) -> list[str]:
    """Names of the host's VMs that need something, running or as they are defined."""
    return [view.name for view in run.hypervisor.list_domains(host) if _uses(run, host, view.uuid, uses)]


def leave(run: StepRun, what: str, why: str) -> None:
    """Note in the record that something was not taken away, since it is in use by now."""
    words = f"{what}, active for this migration, is in use by now: {why}"
    run.save(kept=(*(kept for kept in run.record.kept if kept != words), words))


def _uses(run: StepRun, host: str, uuid: str, uses: Callable[[Domain], bool]) -> bool:
    for inactive in (False, True):
        try:
            domain = parse_domain(run.hypervisor.fetch_xml(host, uuid, inactive=inactive))
        except InvalidRequest:
            return True  # nobody can say
        except OperatorMustFix as error:
            if error.code != "NO_DOMAIN":
                raise
            return False  # gone since it was listed
        if uses(domain):
            return True
    return False

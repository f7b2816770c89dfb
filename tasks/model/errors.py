"""Every error of vmferry: a stable code, one sentence with the facts in it, and a hint that says what to do next."""

from __future__ import annotations


class VmferryError(Exception):
    """Something went wrong that a person can act on.

    ``code`` is stable and upper case (``VM_NOT_FOUND``), ``message`` is one sentence, ``hint`` says what to type or do.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class InvalidRequest(VmferryError):
    """The caller asked for something that cannot be meant: refused before anything is looked at."""


class ConfigurationError(VmferryError):
    """The configuration is missing, malformed or contradicts itself; ``message`` names the key."""


class UnknownMigration(VmferryError):
    """No run record has this id."""


class StoreUnavailable(VmferryError):
    """Redis does not answer, or refuses the credentials."""


class StaleOwner(VmferryError):
    """A write was refused because somebody else owns the migration by now (the fence grew) or its state moved on.

    Whoever gets this must stop without any further effect.
    """


class LimitReached(VmferryError):
    """As many as are allowed do it already; nothing was written. ``token`` says what was not to be had."""

    def __init__(self, token: str) -> None:
        super().__init__("LIMIT_REACHED", f"{token} is taken", "it is waited for")
        self.token = token


class HypervisorError(VmferryError):
    """libvirt refused or failed; the subclass says what that means for the migration."""


class RetryLater(HypervisorError):
    """A passing fault (connection lost, lock timeout): looking again may help; nothing is known to have changed."""


class HostUnreachable(RetryLater):
    """No connection to a host's libvirt daemon."""


class OperatorMustFix(HypervisorError):
    """Trying again without changing something is pointless (name taken, pool missing, not supported)."""


class OutcomeUnknown(HypervisorError):
    """The call ended without saying whether it took effect: both hosts must be read."""


# The four ways in which Celery's result of a migration can be a failure. Their arguments are positional JSON values
# (code, message), so that a plain client without vmferry installed receives them intact.


class MigrationFailed(Exception):
    """The migration failed and was rolled back: the VM is where it was."""


class MigrationRefused(Exception):
    """Preflight refused the migration: nothing was changed."""


class MigrationCancelled(Exception):
    """The migration was cancelled and rolled back: the VM is where it was."""


class NeedsAttention(Exception):
    """The migration could not be settled automatically: an operator must look at both hosts."""

"""The part of the fake that is about post-copy, as it was seen with libvirt 9.0."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Protocol

from tasks.model.domain import DomainState
from tasks.model.errors import OperatorMustFix
from tasks.model.ports import TransferOrder
from tests.fakes.domain import FakeDomain

POSTCOPY, POSTCOPY_FAILED = 12, 13
"""Reasons why a source is paused."""
RUNNING_POSTCOPY, RUNNING_POSTCOPY_FAILED = 10, 11
"""Reasons why a destination runs."""


class PostCopyHost(Protocol):
    """What is used of a fake host."""

    domains: dict[str, FakeDomain]


class FakePostCopy(ABC):
    """See the port."""

    _changed: threading.Condition

    @abstractmethod
    def _asked(
        self, call: str, host: str, *, effect: bool = False, faults: bool = True
    ) -> AbstractContextManager[PostCopyHost]: ...

    @abstractmethod
    def _wait_for_the_end(self, order: TransferOrder) -> None:
        """Of a transfer whose job runs: move the guest, or say what became of it."""

    def start_post_copy(self, host: str, uuid: str) -> bool:
        """See the port."""
        with self._changed, self._asked("start_post_copy", host, effect=True) as there:
            source = there.domains.get(uuid)
            if source is None or not source.job.active or source.order is None:
                return False
            if not source.order.post_copy:
                raise OperatorMustFix("OPERATION_INVALID", f"{host}: not started with the post-copy flag", "")
            self._be(source, broken=False)
            self._changed.notify_all()
            return True

    def break_post_copy(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._changed, self._asked("break_post_copy", host, effect=True) as there:
            source = there.domains[uuid]
            if not source.in_post_copy:
                return
            if source.reason == POSTCOPY_FAILED:
                raise OperatorMustFix("LIBVIRT_ERROR", f"{host}: not in postcopy-active state", "")
            self._be(source, broken=True)
            self._changed.notify_all()

    def resume_post_copy(self, order: TransferOrder) -> None:
        """See the port."""
        with self._changed:
            with self._asked("resume_post_copy", order.source, effect=True) as there:
                source = there.domains[order.uuid]
                if not source.in_post_copy or source.reason != POSTCOPY_FAILED:
                    raise OperatorMustFix("OPERATION_INVALID", f"{order.source}: nothing to resume", "")
                self._be(source, broken=False)
            if source.order is not None:
                self._wait_for_the_end(source.order)

    def _be(self, source: FakeDomain, *, broken: bool) -> None:
        """Both halves of it, as their hosts see them."""
        if source.order is None:
            return
        with self._asked("", source.order.destination, faults=False) as there:
            destination = there.domains[source.uuid]
        source.state, source.reason = DomainState.PAUSED, POSTCOPY_FAILED if broken else POSTCOPY
        reason = RUNNING_POSTCOPY_FAILED if broken else RUNNING_POSTCOPY
        destination.state, destination.reason = DomainState.RUNNING, reason
        if source.persistent:
            destination.persistent, destination.inactive_xml = True, source.order.persistent_xml

# SPDX-License-Identifier: Apache-2.0
"""The one family of errors a user sees: what went wrong, on which host, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable


class BenchError(Exception):
    """A failure that is explained in one line.

    cause: what went wrong, a phrase without a full stop.
    host: the host it happened on, or None when it is not about a host.
    remedy: what the user can do, a phrase without a full stop, or None.
    """

    exit_code = 1

    def __init__(self, cause: str, *, host: str | None = None, remedy: str | None = None) -> None:
        self.cause = cause
        self.host = host
        self.remedy = remedy
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """Return `host: cause (remedy)` with every control character and line break folded away."""
        text = f"{self.host}: {self.cause}" if self.host else self.cause
        if self.remedy:
            text += f" ({self.remedy})"
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class UsageError(BenchError):
    """The command line itself is wrong: exit status 2."""

    exit_code = 2


class HeldError(BenchError):
    """Another run has the host. gone: whether that has certainly ended, by now."""

    def __init__(self, cause: str, *, host: str, remedy: str | None, gone: bool) -> None:
        super().__init__(cause, host=host, remedy=remedy)
        self.gone = gone


class HostsError(BenchError):
    """Several hosts failed: every one is named, not only the first.

    failures: (host, cause) pairs in chain order. errors: each host's own, where they are at hand.
    """

    def __init__(self, failures: list[tuple[str, str]], *, remedy: str | None = None) -> None:
        self.failures = failures
        self.errors: tuple[BenchError, ...] = ()
        first_host, first_cause = failures[0]
        if len(failures) == 1:
            super().__init__(first_cause, host=first_host, remedy=remedy)
            return
        super().__init__("; ".join(f"{host}: {cause}" for host, cause in failures), remedy=remedy)

    @classmethod
    def of(cls, errors: Iterable[BenchError]) -> HostsError:
        """Join the errors of several hosts; a remedy that is not everybody's names its hosts."""
        each: list[BenchError] = []
        for error in errors:
            each += error.errors if isinstance(error, HostsError) and error.errors else [error]
        hosts: dict[str, list[str]] = {}
        for error in each:
            if error.remedy:
                hosts.setdefault(error.remedy, []).append(error.host or "?")
        everybody = len(hosts) == 1 and len(next(iter(hosts.values()))) == len(each)
        remedies = [
            remedy if everybody else f"{', '.join(names)}: {remedy}"
            for remedy, names in hosts.items()
        ]
        joined = cls(
            [(error.host or "?", error.cause) for error in each], remedy="; ".join(remedies) or None
        )
        joined.errors = tuple(each)
        return joined


class Interrupted(KeyboardInterrupt):
    """The user, or the system, asked the command to end; the argument is the signal's name.

    No BenchError: whoever collects the failures of several hosts must not collect this one.
    """

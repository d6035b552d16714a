"""Names of stored sessions, which sort as the sessions began."""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_STAMP = "%Y%m%dT%H%M%S.%fZ"


def session_name(begun: datetime, known: Iterable[str] = ()) -> str:
    """Name a session so that names sort as sessions began, also within one second.

    A clock that was set back would hide it behind those that are stored already: which one is
    the latest decides, for instance, to which runs a baseline is moved.

    Args:
        begun: When it began, in UTC.
        known: Names of the sessions that are stored beside it.
    """
    next_after = [each + timedelta(microseconds=1) for each in map(_begun, known) if each]
    stamp = max([begun, *next_after])
    return f"{stamp:{_STAMP}}-{uuid.uuid4().hex[:8]}"


def _begun(name: str) -> datetime | None:
    """Return when a session began, as its name tells; somebody may have given it another."""
    try:
        return datetime.strptime(name.partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None

"""The outbox: notices that are due, and what became of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, null, select, update
from sqlalchemy.engine import Connection

from orchestrator.core import clock, masking, telling
from orchestrator.store import engine, jobmodels, moves, people, workerbase

_notices = jobmodels.notices.c


class Notices(workerbase.Notices):
    """What tellers do, in SQL."""

    database: engine.Database
    clock: clock.Clock

    def next_notice(self, answer: telling.Answer | None = None, *, more: bool = True) -> telling.Notice | None:
        """Store what became of the last try, and return the notice to try next."""
        if answer is None and not (more and self._is_notice_due()):
            return None
        return self._next_notice(answer, more=more)

    @engine.reads
    def _is_notice_due(self, connection: Connection) -> bool:
        return connection.execute(_due(self.clock.now()).with_only_columns(_notices.seq)).first() is not None

    @engine.writes
    def _next_notice(
        self, connection: Connection, answer: telling.Answer | None, *, more: bool
    ) -> telling.Notice | None:
        now = self.clock.now()
        if answer is not None:
            _settle(connection, answer, now=now)
        while more and (found := connection.execute(_due(now).with_for_update(skip_locked=True)).first()):
            if found.maybe_heard < telling.MAY_BE_HEARD:
                return _begin(connection, found, now=now)
            why = "whoever tried has vanished twice: it may have been heard"
            _end(connection, found, kind="not_told", why=why, now=now)
        return None


def _due(now: datetime) -> Any:
    return select(jobmodels.notices).where(_notices.due_at <= now).order_by(_notices.due_at, _notices.seq).limit(1)


def _begin(connection: Connection, found: Row[Any], *, now: datetime) -> telling.Notice:
    """Count a try, as one that may be heard, before it is made: who dies over it has counted it."""
    until = now + telling.LONGEST_TRY
    counted = {"tries": found.tries + 1, "maybe_heard": found.maybe_heard + 1, "due_at": until}
    connection.execute(update(jobmodels.notices).where(_notices.seq == found.seq).values(counted))
    message = {**found.message, "key": f"{found.job_id}-{found.seq}"}
    return telling.Notice(seq=found.seq, job_id=found.job_id, target=found.target, message=message, until=until)


def _settle(connection: Connection, answer: telling.Answer, *, now: datetime) -> None:
    """Store what became of a try; nothing where that is stored already, or another try has begun since."""
    this = (_notices.seq == answer.notice.seq, _notices.due_at == answer.notice.until)
    found = connection.execute(select(jobmodels.notices).where(*this).with_for_update()).first()
    if found is None:
        return
    if answer.how == "told":
        _end(connection, found, kind="told", why="", now=now)
        return
    heard = found.maybe_heard - (answer.how != "unknown")
    if answer.how == "refused" or found.tries >= telling.TRIES or heard >= telling.MAY_BE_HEARD:
        _end(connection, found, kind="not_told", why=answer.why, now=now)
        return
    again = {"maybe_heard": heard, "due_at": now + telling.pause(found.tries)}
    connection.execute(update(jobmodels.notices).where(_notices.seq == found.seq).values(again))


def _end(connection: Connection, found: Row[Any], *, kind: str, why: str, now: datetime) -> None:
    """Try no more, and say in the job's history how it ended."""
    values = {"due_at": null(), "told_at": now if kind == "told" else None}
    connection.execute(update(jobmodels.notices).where(_notices.seq == found.seq).values(values))
    # Locked: or the event of a later attempt could come before this one, which would name an earlier one.
    job = people.row(connection, found.job_id, lock=True)
    detail = f"{found.message['event']}: {masking.target(found.target)}{why and f' ({why})'}"
    moves.record(connection, job, old=job, kind=kind, actor="teller", now=now, detail=detail)

"""The order in which queued jobs are claimed.

Priority ages linearly: a job's rank is its submit time less a fixed bonus for each point of priority. All waiting
jobs age alike, so the rank never changes after submit: it can be stored and indexed, and nothing starves.
"""

from datetime import datetime, timedelta

#: How much waiting one point of priority is worth.
PRIORITY_BONUS = timedelta(hours=1)


def rank(*, submitted_at: datetime, priority: int) -> float:
    """Return the claim rank in seconds: the lowest is claimed first, `seq` breaks ties."""
    return submitted_at.timestamp() - priority * PRIORITY_BONUS.total_seconds()

"""Which host a job goes to where several could begin it: one that has its data, if that costs nobody anything.

It never changes whose turn it is. A slot that hears a doorbell lets another host hear it first where that one has the
data of the job that is next, and a free device for it; `HEAD_START` later it claims whatever is next by the order, and
asks nothing more. A slot that looks by itself, without a doorbell, claims at once. So no job waits longer than that for
its data's host, and none for a host that does not come.
"""

from collections.abc import Collection, Iterable
from datetime import timedelta

from orchestrator.core import gangs
from orchestrator.core.resources import Demand

#: Seconds that a host with the data has, to hear the doorbell and to claim.
HEAD_START = 0.5

#: For how long a host is taken to have data that no job had there since.
REMEMBERED = timedelta(days=30)


def lets_another(
    demand: Demand, *, host: str, having: Collection[str], hosts: Iterable[tuple[str, gangs.Host]]
) -> bool:
    """Whether a slot of a host lets another one hear the doorbell for a job first.

    `having` are the hosts with its data, `hosts` the workers that could train it, each with the name of its host.
    """
    return host not in having and any(name in having and gangs.chosen(demand, one.free) for name, one in hosts)

"""How each failpoint is reached: a scenario leads by it, and everything ends as if nothing had happened there."""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator import failpoints
from tests.faults import cases, homes, lane, promises
from tests.faults.scenarios import data, nodes, people, work

#: Seconds in which a place is reached after all else has happened: a node's round may be what leads by it.
_SOON = 60.0


@dataclass(frozen=True, eq=False)
class Scenario:
    """What is done in a home of these settings."""

    run: Callable[[homes.Home], None]
    database: bool = True  #: whether it is there already
    settings: Mapping[str, Any] = field(default_factory=dict)
    most: int = 3  #: places at which CI disturbs it at once: fewer where one keeps others from being reached


_LIFE = Scenario(work.life)
_LOOKED = Scenario(people.looked, most=len(people.QUESTIONS))
_RESTORED = Scenario(people.restored, most=9)
_FRESH = Scenario(people.fresh, database=False)

#: By place, or by the words that it begins with; the first that fits. Everything else is on the way of any job.
SCENARIOS: dict[str, Scenario] = {
    "artifacts.remove": Scenario(people.deleted),
    "ask.start": Scenario(people.predicted),
    "attempt.tidy": Scenario(nodes.untidy),
    "backup": _RESTORED,
    "bell": Scenario(work.life, most=1),
    "broker": Scenario(nodes.broker, settings={"broker_url": None}, most=1),
    "cache.drop": Scenario(people.cancelled),
    "cache.stamp": Scenario(data.local),
    "cache.wait": Scenario(data.two_at_once, settings={"download_slots": 2}),
    "checkpoint": Scenario(work.life, most=1),  # the training is a step ahead of what is written
    "child.start": Scenario(nodes.child),
    "download.sum": Scenario(data.named),
    "decoded": Scenario(work.life, most=1),  # whoever cannot keep pictures reads none later
    cases.CLOCK: Scenario(nodes.jumped, settings={"heartbeat": 0.2, "sweep": 0.3, "lease": 5}),
    "device.lock": Scenario(nodes.locked),
    "doorbell.length": Scenario(work.waiting, settings={"user_limits": "*=9"}),  # else nothing is held on a server
    "doorbell.server": Scenario(people.examined),
    "drain.read": Scenario(nodes.drained),
    "drain.write": Scenario(nodes.up, most=4),
    "git": Scenario(people.sourced, most=1),
    "home.mkdir": _FRESH,
    "journal": Scenario(work.journalled, most=1),
    "local.read": Scenario(data.local),
    "named.look": Scenario(data.named_before),
    "named": Scenario(data.named),
    "node.lock": Scenario(nodes.only_one),
    "node.pid": Scenario(nodes.only_one),
    "notice": Scenario(work.told),
    "permits": Scenario(nodes.one_job_each),
    "pick": Scenario(work.picked),
    "pixels.drop": Scenario(data.crowded, settings={"decoded_max_bytes": data.ROOM}),
    "pixels": Scenario(work.life, most=1),
    "ranks.fail": Scenario(work.apart, settings={"slots_per_device": 2}),
    "ranks": Scenario(work.together, settings={"slots_per_device": 2}, most=4),
    "restore": _RESTORED,
    "root.look": Scenario(people.deleted),
    "schema.dump": _RESTORED,
    "schema.load": _RESTORED,
    "schema.vacancy": _RESTORED,
    "schema": _FRESH,
    "store.beat": Scenario(work.unhurried, most=1),
    "store.begin_anew": Scenario(people.retried),
    "store.cancel": Scenario(people.cancelled),
    "store.delete": Scenario(people.deleted),
    "store.forget_worker": Scenario(nodes.forgotten),
    "store.is_held": Scenario(work.unheard, settings={"user_limits": "*=9"}),  # else a claim of nothing commits, too
    "store.is_worth_it": Scenario(work.life, settings={"user_limits": "*=9"}),  # on a server without any, nobody looks
    "store.lose_worker": Scenario(nodes.lost, settings={"heartbeat": 0.3, "lease": 1.5}),
    "store.make_room": Scenario(people.yielded, settings={"stay": 0.1}, most=1),
    "store.next_notice": Scenario(work.told),
    "store.note": Scenario(work.damaged),
    "store.pause": Scenario(people.paused),
    "store.record_epoch": Scenario(work.outlasted, most=1),
    "store.record_log": Scenario(work.noisy, most=1),
    "store.resume": Scenario(people.paused),
    "store.steer": Scenario(people.steered),
    "store.take_back": Scenario(nodes.orphaned),
    "store.unblock": Scenario(work.life, most=1),  # so rare that a short job may end first
    "store.wish_worker": Scenario(nodes.wished),
    "store.wish": Scenario(work.unhurried, settings={"heartbeat": 2, "lease": 6}),
    **{f"store.{question}": _LOOKED for question in people.QUESTIONS},
    "up": Scenario(nodes.up, most=4),  # what starts a real node takes long
    "weights": Scenario(data.weighted),
    "whole.discard": Scenario(data.spoilt),
    "whole.open": Scenario(data.spoilt),
}


def of(place: str) -> Scenario:
    """Return the scenario that leads by the place."""
    fitting = (scenario for words, scenario in SCENARIOS.items() if place == words or place.startswith(f"{words}."))
    return next(fitting, _LIFE)


def together(chosen: Iterable[cases.Case]) -> Iterator[cases.Case]:
    """Yield cases that do at several places of one scenario what those chosen do at one each.

    A write of the database is disturbed at its own places alone: blows at others would keep them from being reached.
    """
    alike: dict[tuple[Scenario, str, str], list[str]] = {}
    for case in chosen:
        (place,) = case.places
        method = place.rpartition(".")[0]
        write = method if f"{method}.commit" in failpoints.PLACES else ""
        alike.setdefault((of(place), write, case.actions), []).append(place)
    for (scenario, _, actions), places in alike.items():
        for start in range(0, len(places), scenario.most):
            yield cases.Case(places=tuple(places[start : start + scenario.most]), actions=actions)


def walk(shared: lane.Lane, case: cases.Case) -> tuple[str, dict[str, list[str]]]:
    """Walk a case in a home of its own.

    Return what did not hold, with all that was said, or an empty text; and by place the actions for which nobody came
    by.
    """
    promises.undisturbed(shared)
    scenario = of(case.places[0])
    home = homes.Home(shared, case, database=scenario.database, **scenario.settings)
    try:
        scenario.run(home)
        _reach(home, case)
        home.leave()
        promises.check(home)
        return "", home.left()
    except Exception:  # noqa: BLE001 - it is the case's result
        return f"{traceback.format_exc()}\n{home.told()}", {}
    finally:
        home.remove()


def _reach(home: homes.Home, case: cases.Case) -> None:
    """Wait for the place to be reached: never at a first visit is a defect of the scenario."""
    deadline = time.monotonic() + _SOON
    while case.visit == 1 and not home.reached():
        assert time.monotonic() < deadline, f"not all of {case} were ever reached: they need a scenario"
        home.mend()  # the first of several places may have ended the node behind the job's end
        time.sleep(0.02)

"""How many trainings of one user, or with one tag, may run at once."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Stands for everybody, or every tag, that is not named.
OTHERS = "*"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Trainings at once, by user and by tag."""

    users: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, int] = field(default_factory=dict)

    def of_user(self, user: str) -> int | None:
        """Return the limit of a user, None where there is none."""
        return self.users.get(user, self.users.get(OTHERS))

    def of_tag(self, tag: str) -> int | None:
        """Return the limit of a tag, None where there is none."""
        return self.tags.get(tag, self.tags.get(OTHERS))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.users or self.tags)

    def user_is_full(self, user: str, running: int) -> bool:
        """Whether a user with so many trainings may not begin another one."""
        limit = self.of_user(user)
        return limit is not None and running >= limit

    def full_tags(self, running: Iterable[Iterable[str]]) -> set[str]:
        """Return the tags of which no more trainings may begin; `running` are the tags of each that runs."""
        counts = Counter(tag for tags in running for tag in set(tags))
        return {tag for tag, count in counts.items() if (limit := self.of_tag(tag)) is not None and count >= limit}


NONE = Limits()


def pairs(given: Any) -> Any:
    """Return the table that a text such as `a=1,b=2` stands for; what is no text as it is."""
    if not isinstance(given, str):
        return given
    parts = [part.rpartition("=") for part in given.split(",") if part.strip()]
    return {name.strip(): count.strip() for name, _, count in parts}

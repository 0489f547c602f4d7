"""How far long work is, on stderr: a line for each tenth."""

from orchestrator.cli import render, words

_TENTHS = 10


class Lines:
    """Says how far each of several works is, told apart by their units, as it comes a tenth further."""

    def __init__(self) -> None:
        self._said: tuple[str, int] | None = None

    def __call__(self, done: int, total: int | None, unit: str) -> None:
        """Say it, where it is news."""
        if not total:
            return
        now = (unit, _TENTHS * done // total)
        if now != self._said and done:
            self._said = now
            kind, _, doing = unit.partition(" ")
            of = f"{words.size(total)} {doing}".strip() if kind == "bytes" else f"{total:,} {unit}"
            render.talk(f"{100 * done // total} % of {of}")

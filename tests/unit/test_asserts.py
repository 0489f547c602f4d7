"""Each test can fail: it asserts something, or calls what does."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

#: Calls of others' code that raise where something does not hold.
_OTHERS = frozenset({"fail", "raises", "run_state_machine_as_test", "warns"})


def silent(sources: Iterable[str]) -> set[str]:
    """Return the tests from which no assertion can be reached, by the names of what they call."""
    asserting: set[str] = set(_OTHERS)
    calls: list[tuple[str, set[str]]] = []
    for source in sources:
        for function in _functions(ast.parse(source).body):
            nodes = list(ast.walk(function))
            if any(isinstance(node, ast.Assert | ast.Raise) for node in nodes):
                asserting.add(function.name)
            calls.append((function.name, {_name(node.func) for node in nodes if isinstance(node, ast.Call)}))
    before = 0
    while len(asserting) > before:
        before = len(asserting)
        asserting |= {name for name, called in calls if called & asserting or any(map(_asserts, called))}
    return {name for name, _ in calls if name.startswith("test_")} - asserting


def _functions(body: Iterable[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """Yield the functions and methods; what is within one is a part of it."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body)


def _name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _asserts(name: str) -> bool:
    return name.startswith("assert")


def test_every_test_asserts_something() -> None:
    assert silent(path.read_text("utf-8") for path in TESTS.rglob("*.py")) == set()


@pytest.mark.parametrize("body", ["print()", "helper()", "with suppress(OSError): print()"])
def test_one_that_asserts_nothing_would_be_found(body: str) -> None:
    helper = "def helper(): print()\n"
    assert silent([f"{helper}def test_it():\n    {body}\n"]) == {"test_it"}

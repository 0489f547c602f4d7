"""Each test can fail: it asserts something, or calls what does."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Calls of others' code that raise where something does not hold.
_OTHERS = frozenset({"fail", "raises", "run_state_machine_as_test", "warns"})

#: A function, by its module and its name.
Place = tuple[str, str]


class Module:
    """A module of tests: its functions, those of its classes with a dot before them, and whose names it uses."""

    def __init__(self, name: str, source: str) -> None:
        body = ast.parse(source).body
        self.functions = {node.name: [node] for node in _functions(body)}
        for owner in body:
            for node in _functions(owner.body) if isinstance(owner, ast.ClassDef) else ():
                self.functions.setdefault(f".{node.name}", []).append(node)
        self.imported: dict[str, str] = {}  #: the dotted name of each name that stands for it
        for each in ast.walk(ast.Module(body, [])):
            if isinstance(each, ast.ImportFrom):
                self.imported |= {name.asname or name.name: f"{each.module}.{name.name}" for name in each.names}
        packages = name.split(".")[:-1]
        #: Where the fixtures are that a parameter may name.
        self.conftests = [".".join([*packages[:depth], "conftest"]) for depth in range(len(packages), 0, -1)]


def silent(sources: Mapping[str, str]) -> set[str]:
    """Return the tests from which no assertion can be reached; `sources` are those of modules, by their names."""
    modules = {name: Module(name, source) for name, source in sources.items()}
    asserting: set[Place] = set()
    calls: dict[Place, set[Place]] = {}
    for name, module in modules.items():
        for known, functions in module.functions.items():
            if any(map(_asserts, functions)):
                asserting.add((name, known))
            calls[name, known] = {place for each in functions for place in _called(modules, name, each)}
    before = 0
    while len(asserting) > before:
        before = len(asserting)
        asserting |= {place for place, called in calls.items() if called & asserting}
    tests = {(module, name) for module, name in calls if name.lstrip(".").startswith("test_")}
    return {name.lstrip(".") for _, name in tests - asserting}


def _functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """Yield the functions; what is within one is a part of it."""
    return (node for node in body if isinstance(node, ast.FunctionDef))


def _asserts(function: ast.FunctionDef) -> bool:
    """Whether something of it fails; a test that has others raise does not by that."""
    is_test = function.name.startswith("test_")
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Raise) and not is_test):
            return True
        if isinstance(node, ast.Call) and (_name(node.func) in _OTHERS or _name(node.func).startswith("assert")):
            return True
    return False


def _name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _called(modules: Mapping[str, Module], here: str, function: ast.FunctionDef) -> Iterator[Place]:
    """Yield what a function may call, or hand on to be called."""
    module = modules[here]
    parameters = {each.arg for each in (*function.args.args, *function.args.kwonlyargs)}
    near = {here, *module.conftests, *module.imported.values()}
    near |= {dotted.rpartition(".")[0] for dotted in module.imported.values()}
    near &= modules.keys()
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            for where in (here, *(module.conftests if node.id in parameters else ())):
                yield from _named(modules, where, node.id)
        elif isinstance(node, ast.Attribute):
            yield from _named(modules, module.imported.get(_name(node.value), ""), node.attr)
            yield from ((each, f".{node.attr}") for each in near)


def _named(modules: Mapping[str, Module], where: str, name: str) -> Iterator[Place]:
    """Yield where a name of a module may have been defined."""
    yield where, name
    if where in modules:
        owner, _, known = modules[where].imported.get(name, "").rpartition(".")
        yield owner, known


def test_every_test_asserts_something() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    assert silent({name: path.read_text("utf-8") for name, path in dotted.items()}) == set()


#: What stands beside the test.
HELPERS = {
    "tests.conftest": "def fixture():\n    def checked(): assert True\n    return checked\n",
    "tests.other": "def get(): assert True\nclass Thing:\n    def check(self): assert True\n    def get(self): pass\n",
}


@pytest.mark.parametrize(
    ("body", "can_fail"),
    [
        ("print()", False),
        ("helper()", False),
        ("with suppress(OSError): print()", False),
        ("{}.get(1)", False),  # another one than the function of that name
        ("thing.get()", False),
        ("assert True", True),
        ("other.get()", True),
        ("thing.check()", True),
        ("fixture()", True),
    ],
)
def test_one_that_asserts_nothing_would_be_found(body: str, *, can_fail: bool) -> None:
    test = f"from tests import other\ndef helper(): print()\ndef test_it(thing, fixture):\n    {body}\n"
    assert silent(HELPERS | {"tests.unit.test_it": test}) == (set() if can_fail else {"test_it"})

"""Jobs are data, never code: the lint bites wherever bytes from outside could become objects or commands."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Two lines each: what must not stand in the code, and the rule that finds it.
BANNED = [
    ("import pickle", "pickle.loads(data)", "TID251"),
    ("from pickle import loads", "loads(data)", "TID251"),
    ("import marshal", "marshal.loads(data)", "TID251"),
    ("import shelve", "shelve.open(data)", "TID251"),
    ("import dill", "dill.loads(data)", "TID251"),
    ("import cloudpickle", "cloudpickle.loads(data)", "TID251"),
    ("import joblib", "joblib.load(data)", "TID251"),
    ("import numpy as np", "np.load(data, allow_pickle=True)", "TID251"),
    ("import torch", "torch.load(data)", "TID251"),
    ("import torch", "torch.load(data, weights_only=True)", "TID251"),
    ("import torch", "torch.jit.load(data)", "TID251"),
    ("import torch", "torch.hub.load(data, data)", "TID251"),
    ("import yaml", "yaml.load(data, yaml.Loader)", "TID251"),
    ("import yaml", "yaml.load(data, yaml.Loader)", "S506"),
    ("import yaml", "yaml.unsafe_load(data)", "TID251"),
    ("import yaml", "yaml.full_load(data)", "TID251"),
    ("import multiprocessing", "multiprocessing.Queue()", "TID251"),
    ("import multiprocessing", "multiprocessing.SimpleQueue()", "TID251"),
    ("import multiprocessing", "multiprocessing.JoinableQueue()", "TID251"),
    ("import multiprocessing", "multiprocessing.Manager()", "TID251"),
    ("import multiprocessing.managers", "data", "TID251"),
    ("import multiprocessing", "multiprocessing.Pool()", "TID251"),
    ("import multiprocessing.pool", "data", "TID251"),
    ("import concurrent.futures", "concurrent.futures.ProcessPoolExecutor()", "TID251"),
    ("import subprocess", "subprocess.run(data, shell=True)", "S602"),
    ("import os", "os.system(data)", "S605"),
    ("import os", "os.getenv(data)", "TID251"),
    ("import os", "os.environ[data]", "TID251"),
    ("import hashlib", "eval(data)", "S307"),
    ("import hashlib", "exec(data)", "S102"),
    ("import requests", "requests.get(data, verify=False, timeout=1)", "S501"),
    ("import tempfile", "tempfile.mktemp(data)", "S306"),
]


@pytest.fixture(scope="module", params=["orchestrator", "worker", "tests"])
def found(request: pytest.FixtureRequest) -> dict[int, set[str]]:
    """What the lint says of a file of all these in one of our folders: rules by line."""
    check = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise"]
    done = subprocess.run(
        [*check, f"--stdin-filename={request.param}/x.py", "-"],
        input="\n".join(f"{importing}\n{using}" for importing, using, _ in BANNED),
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    rules: dict[int, set[str]] = {}
    for line, rule in re.findall(r"x\.py:(\d+):\d+: (\w+)", done.stdout):
        rules.setdefault(int(line), set()).add(rule)
    return rules


@pytest.mark.parametrize("number", range(len(BANNED)), ids=[" ".join(row) for row in BANNED])
def test_the_lint_finds_it(number: int, found: dict[int, set[str]]) -> None:
    lines = (2 * number + 1, 2 * number + 2)
    assert any(BANNED[number][2] in found.get(line, ()) for line in lines)


def _unpickling(tree: ast.AST) -> list[int]:
    """Return the lines that call `recv()`: without a size it is no socket's, but the one of a pipe, which unpickles."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "recv"
        and not (node.args or node.keywords)
    ]


def test_no_pipe_is_read_as_pickles() -> None:
    for path in [*ROOT.glob("orchestrator/**/*.py"), *ROOT.glob("worker/**/*.py")]:
        assert _unpickling(ast.parse(path.read_bytes())) == [], path


def test_reading_a_pipe_as_pickles_would_be_found() -> None:
    assert _unpickling(ast.parse("connection.recv_bytes()\nsocket.recv(64)\nconnection.recv()")) == [3]

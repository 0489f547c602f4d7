import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator import config

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with what it needs and nothing more; return the folder of its commands."""
    venv = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-compile", str(wheel)], check=True, capture_output=True)
    return venv / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Mapping[str, str]:
    """Return an environment whose home is a new folder, far from the checkout."""
    return config.child_environment(config.Settings(), ORCH_HOME=str(tmp_path / "home"), PYTHONPATH="")


def run(command: list[str | Path], environment: Mapping[str, str], folder: Path) -> str:
    done = subprocess.run(command, env=environment, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_carries_migrations_and_the_sample_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "orchestrator/_alembic/env.py" in names
    assert any(name.startswith("orchestrator/_alembic/versions/") for name in names)
    assert any(name.endswith("/digits.zip") for name in names)
    assert "orchestrator/recipes/notebook.toml" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"orchestrator", "worker"}


def test_command_line_needs_no_torch(installed: Path, elsewhere: Mapping[str, str], tmp_path: Path) -> None:
    find = "import importlib.util as u; print(*[m for m in ('torch', 'torchvision', 'psycopg') if u.find_spec(m)])"
    assert run([installed / "python", "-c", find], elsewhere, tmp_path).strip() == ""


def test_database_is_made_from_the_wheel_alone(installed: Path, elsewhere: Mapping[str, str], tmp_path: Path) -> None:
    assert "submit" in run([installed / "orch", "--help"], elsewhere, tmp_path)
    run([installed / "orch", "db", "upgrade"], elsewhere, tmp_path)
    assert run([installed / "orch", "db", "current"], elsewhere, tmp_path).strip()
    run([installed / "orch", "db", "check"], elsewhere, tmp_path)
    assert (tmp_path / "home" / "orch.db").is_file()


def test_job_is_resolved_from_the_wheel_alone(installed: Path, elsewhere: Mapping[str, str], tmp_path: Path) -> None:
    shown = run([installed / "orch", "submit", "--data", "digits", "--dry-run"], elsewhere, tmp_path)
    assert "densenet121" in shown

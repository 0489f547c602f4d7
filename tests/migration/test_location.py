import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator
from orchestrator.store import migrations

CHECKOUT = Path(orchestrator.__file__).parents[1]


def test_checkout_is_used_where_nothing_is_installed() -> None:
    assert migrations.scripts() == CHECKOUT / "alembic"


def test_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "site-packages" / "orchestrator"
    (installed / "_alembic").mkdir(parents=True)
    monkeypatch.setattr(migrations, "__file__", str(installed / "store" / "migrations.py"))
    assert migrations.scripts() == installed / "_alembic"


def test_working_directory_does_not_matter(tmp_path: Path) -> None:
    """A folder `alembic` in the working directory is neither our migrations nor the library."""
    (tmp_path / "alembic").mkdir()
    code = (
        "from orchestrator.store import migrations; migrations.upgrade('sqlite:///there.db');"
        "print(migrations.current('sqlite:///there.db'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == migrations.HEAD


def test_opening_imports_no_alembic(tmp_path: Path) -> None:
    """It costs 0.45 s, which every command would pay."""
    code = (
        "import sys; from pathlib import Path; from orchestrator import config; from orchestrator.store import sql;"
        "sql.open_store(config.Settings(home=Path('home'), lock_dir=Path('locks'))).close();"
        "print([name for name in ('alembic', 'filelock', 'sqlalchemy.orm', 'psycopg') if name in sys.modules])"
    )
    shown = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert "alembic" in shown[0]  # the first makes the database
    assert shown[1].strip() == "[]"

"""`orch init` and `orch schema`: job files to begin with, and what editors know of them."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.core import specs
from orchestrator.service import jobfile, recipes
from tests.integration.cli.conftest import Orch


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def counting(text: str) -> str:
    """Return a job file with every field that has a value set, as if somebody had taken all # away."""
    return re.sub(r"^#(\w+(?::| =) )", r"\1", text, flags=re.MULTILINE)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("file", ["job.toml", "job.yaml"])
def test_a_new_job_file_is_the_job_without_any_option(orch: Orch, file: str) -> None:
    assert orch("init", file).rows == [[file]]
    text = Path(file).read_text("utf-8")
    assert len(re.findall(r"^#?\w+(?::| =)", text, re.MULTILINE)) == len(specs.JobSpec.model_fields) + len(
        jobfile.QUEUE_KEYS
    )
    Path(file).write_text(counting(text), "utf-8")
    set_in_it = jobfile.load(Path(file)).fields
    defaults = specs.JobSpec().model_dump(mode="json")
    assert set(set_in_it) == {name for name, value in defaults.items() if value is not None}
    for words in ((), (file,)):
        resolved = json.loads(orch("submit", *words, "--dry-run", "--json").out)
        assert resolved["spec"] == defaults
        assert resolved["spec_hash"] == specs.JobSpec().digest()


def test_a_file_that_is_there_stays(orch: Orch, here: Path) -> None:
    (here / "job.toml").write_text("epochs = 3")
    ran = orch("init")
    assert (ran.code, (here / "job.toml").read_text()) == (2, "epochs = 3")
    assert "orch init --force job.toml" in ran.err
    assert orch("init", "--force").code == 0
    assert "epochs = 5" in (here / "job.toml").read_text()
    assert orch("init", "gone/job.toml").code == 2


def test_a_folder_is_no_file_to_write_over(orch: Orch, here: Path) -> None:
    for words in ((), ("--force",)):
        ran = orch("init", str(here), *words)
        assert (ran.code, f"{here} is a folder." in ran.err, "--force" in ran.err) == (2, True, False)
        assert f"orch init {here}/job.toml" in ran.err


@pytest.mark.usefixtures("here")
def test_a_name_is_quoted_where_it_stands_in_a_command(orch: Orch) -> None:
    assert orch("init", "my job.toml").code == 0
    assert "`orch submit 'my job.toml'`" in Path("my job.toml").read_text("utf-8")
    assert "orch init --force 'my job.toml'" in orch("init", "my job.toml").err
    assert orch("init", "two\nlines.toml").code == 0
    jobfile.load(Path("two\nlines.toml"))


def test_it_prints_where_that_is_asked_for(orch: Orch, here: Path) -> None:
    assert tomllib.loads(orch("init", "-").out)["data"] == "cats_and_dogs"
    assert yaml.safe_load(orch("init", "--yaml", "-").out)["data"] == "cats_and_dogs"
    assert list(here.iterdir()) == []


@pytest.fixture
def checker(orch: Orch) -> Any:
    schema = json.loads(orch("schema", "job").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_takes_what_submit_takes(checker: Any, orch: Orch) -> None:
    assert recipes.names()
    for taken in (
        tomllib.loads(counting(orch("init", "-").out)),
        *(recipes.load(name).fields for name in recipes.names()),
        {"recipe": "digits", "name": "a", "tags": ["b"], "priority": 2, "retries": {"lost": 10}},
        {"max_duration": None},  # YAML's null
    ):
        assert list(checker.iter_errors(taken)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"epoch": 5},
        {"epochs": 0},
        {"epochs": "many"},
        {"network": "densenet122"},
        {"crop_scale": [0.1]},
        {"retries": {"lots": 1}},
        {"priority": "high"},
        {"optimizer": "lion"},
    ],
    ids=str,
)
def test_the_schema_refuses_what_submit_refuses(checker: Any, wrong: dict[str, Any]) -> None:
    assert not checker.is_valid(wrong)


def test_every_field_is_described(checker: Any) -> None:
    for name, field in checker.schema["properties"].items():
        assert field.get("description"), name
    described = {name: info.description for name, info in specs.JobSpec.model_fields.items()}
    assert {name: checker.schema["properties"][name]["description"] for name in described} == described

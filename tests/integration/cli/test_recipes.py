"""`orch recipes`, and `--recipe`."""

import json
from pathlib import Path

import pytest

from orchestrator.service import recipes
from orchestrator.store import base
from tests.integration.cli.conftest import Orch


def test_a_pipe_gets_names_and_what_they_are(orch: Orch) -> None:
    rows = orch("recipes").rows
    assert [row[0] for row in rows] == recipes.names()
    assert ["notebook", "The reference notebook's training: what a job is without any option."] in rows


def test_one_is_printed_as_the_job_file_that_it_is(orch: Orch, store: base.Store, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(orch("recipes", "paper-cifar").out, encoding="utf-8")
    assert orch("submit", str(file), "--data", "digits", "--name", "mine").code == 0
    assert orch("submit", "--recipe", "paper-cifar", "--data", "digits", "--name", "theirs").code == 0
    assert store.find("mine").spec == store.find("theirs").spec
    assert store.find("theirs").spec.schedule == "step"


def test_json_holds_the_fields(orch: Orch) -> None:
    (told,) = json.loads(orch("recipes", "notebook", "--json").out)["recipes"]
    assert (told["name"], told["fields"]["optimizer"], told["fields"]["lr"]) == ("notebook", "adam", 1e-4)


@pytest.mark.usefixtures("store")
def test_a_dry_run_names_the_recipe_as_origin(orch: Orch) -> None:
    rows = orch("submit", "--recipe", "paper-cifar", "--data", "digits", "--epochs", "3", "--dry-run").rows
    assert ["lr", "0.1", "recipe paper-cifar"] in rows
    assert ["epochs", "3", "flag"] in rows
    assert ["growth_rate", "12", "network densenet_bc_100_12"] in rows


@pytest.mark.usefixtures("store")
def test_an_unknown_one_is_refused_with_the_nearest(orch: Orch) -> None:
    for words in (("recipes", "notebok"), ("submit", "--recipe", "notebok")):
        ran = orch(*words)
        assert (ran.code, ran.out) == (2, "")
        assert "did you mean 'notebook'" in ran.err

"""`orch show`: what a job is, and what its result stands on."""

import json
from pathlib import Path

import pytest

from orchestrator.core import provenance, states
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch

SOURCE = provenance.Source(
    commit="c" * 40, branch="main", dirty=True, diff="+one\n", diff_sha256="d" * 64, diff_bytes=5, remark="masked"
)


def test_each_value_says_where_it_comes_from(orch: Orch, store: base.Store, tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('data = "digits"\nlr = 1e-2\n', encoding="utf-8")
    job_id = orch("submit", str(file), "--epochs", "2", "-q").out.strip()
    rows = orch("show", job_id).rows
    assert ["epochs", "2", "flag"] in rows
    assert ["lr", "0.01", str(file)] in rows
    assert ["image_size", "32", "data digits"] in rows
    assert ["batch_size", "4", "default"] in rows
    clone = orch("clone", job_id, "--lr", "0.5").rows[0][0]
    told = json.loads(orch("show", clone, "--json").out)
    assert (told["origins"]["lr"], told["origins"]["epochs"]) == ("flag", f"job {job_id}")
    assert (told["job"], told["spec"]["lr"], told["spec_hash"]) == (clone, 0.5, store.get(clone).spec_hash)


def test_of_a_spec_from_elsewhere_only_defaults_are_known(orch: Orch, store: base.Store) -> None:
    job = parts.submit(store)
    assert {row[2] for row in orch("show", job.id).rows} == {"default"}
    held = parts.claimed(store)
    store.finish(held, parts.failed(states.Reason.BAD_INPUT))
    orch("extend", job.id, "--epochs", "9")
    assert ["epochs", "9", "extend"] in orch("show", job.id).rows


def test_env_names_commit_data_and_what_it_trained_with(orch: Orch, store: base.Store) -> None:
    held = parts.training(store, provenance=provenance.Provenance(source=SOURCE))
    store.record_environment(held, parts.ENVIRONMENT)
    rows = orch("show", held.id, "--env").rows
    assert ["source", "commit", "c" * 40] in rows
    assert ["source", "diff_sha256", "d" * 64] in rows
    assert any(row[0] == "version" and "torch=2.14.1" in row for row in rows)
    told = json.loads(orch("show", held.id, "--env", "--json").out)
    assert told["source"] == {**vars(SOURCE)}
    assert told["trained"][0]["environment"]["threads"] == 2
    assert (told["spec_hash"], told["data_hash"]) == (held.job.spec_hash, None)


def test_the_difference_alone_is_for_git_apply(orch: Orch, store: base.Store) -> None:
    job = parts.submit(store, provenance=provenance.Provenance(source=SOURCE))
    ran = orch("show", job.id, "--diff")
    assert (ran.code, ran.out) == (0, "+one\n")
    assert "Masked." in ran.err
    assert orch("show", job.id, "--diff", "--env").code == 2


@pytest.mark.parametrize(
    ("source", "why"),
    [(None, "None was kept"), (provenance.Source(dirty=False), "All was committed"), (SOURCE, "Too large")],
)
def test_a_difference_that_is_not_there_is_code_3(
    orch: Orch, store: base.Store, source: provenance.Source | None, why: str
) -> None:
    if source is SOURCE:
        source = provenance.Source(dirty=True, remark="Too large")
    job = parts.submit(store, provenance=provenance.Provenance(source=source))
    ran = orch("show", job.id, "--diff")
    assert (ran.code, ran.out) == (3, "")
    assert why in ran.err

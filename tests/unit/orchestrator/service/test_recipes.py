"""Recipes: each a job that can run, with the values that its source names, between job file and presets."""

from typing import Any

import pytest

from orchestrator import errors
from orchestrator.core import specs
from orchestrator.service import jobfile, recipes

DATA = {"data": "/pictures"}


@pytest.mark.parametrize("name", recipes.names())
def test_each_is_a_job_that_can_run_and_says_what_it_is(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.text.startswith("# ")
    assert recipe.summary.endswith(".")
    assert jobfile.parse(recipe.text.encode(), origin="mine.toml").fields == recipe.fields  # a start for one's own
    assert not jobfile.resolve(flags=DATA, recipe=name).spec.idle()


def test_the_notebooks_is_the_defaults() -> None:
    assert jobfile.resolve(flags={}, recipe="notebook").spec == specs.JobSpec()


#: https://arxiv.org/abs/1608.06993, section 4.2.
PAPER: list[tuple[str, dict[str, Any]]] = [
    ("paper-cifar", {"epochs": 300, "batch_size": 64, "lr_steps": (0.5, 0.75), "crop_padding": 4, "image_size": 32}),
    ("paper-imagenet", {"epochs": 90, "batch_size": 256, "lr_steps": (1 / 3, 2 / 3), "image_size": 224}),
]


@pytest.mark.parametrize(("name", "fields"), PAPER)
def test_the_papers_are_the_papers(name: str, fields: dict[str, Any]) -> None:
    spec = jobfile.resolve(flags=DATA, recipe=name).spec
    assert {field: getattr(spec, field) for field in fields} == fields
    assert (spec.optimizer, spec.lr, spec.momentum, spec.nesterov) == ("sgd", 0.1, 0.9, True)
    assert (spec.weight_decay, spec.decay_norm, spec.schedule, spec.lr_gamma) == (1e-4, True, "step", 0.1)


def test_fine_tuning_lets_the_head_learn_first_and_everything_slowly_after() -> None:
    resolved = jobfile.resolve(flags=DATA, recipe="finetune")
    spec = resolved.spec
    assert [spec.learning(epoch) for epoch in range(spec.epochs)] == ["head"] * 3 + ["all"] * 7
    assert spec.head_lr is not None
    assert spec.lr < spec.head_lr
    assert (spec.mean, resolved.origins["mean"]) == ((0.485, 0.456, 0.406), "weights imagenet")
    mine = {"weights": "/w.safetensors", "network": "densenet_bc_40_12", "image_size": "32"}
    assert jobfile.resolve(flags=DATA | mine, recipe="finetune").spec.mean == specs.JobSpec().mean


def test_flags_beat_the_file_which_beats_the_recipe_which_beats_presets() -> None:
    file = jobfile.parse(b'recipe = "paper-cifar"\ndata = "digits"\nepochs = 7\nlr = 0.5\n', origin="job.toml")
    resolved = jobfile.resolve(flags={"lr": "0.25"}, file=file)
    assert (resolved.spec.lr, resolved.spec.epochs, resolved.spec.batch_size) == (0.25, 7, 64)
    expected = {
        "lr": "flag",
        "epochs": "job.toml",
        "flip": "recipe paper-cifar",  # digits would not be mirrored by themselves
        "crop_scale": "data digits",
        "growth_rate": "network densenet_bc_100_12",
        "seed": "default",
    }
    assert {name: resolved.origins[name] for name in expected} == expected


def test_a_recipe_that_is_named_beats_the_files() -> None:
    file = jobfile.parse(b'recipe = "paper-cifar"', origin="job.toml")
    assert jobfile.resolve(flags=DATA, file=file, recipe="paper-imagenet").spec.batch_size == 256


def test_an_unknown_one_is_told_with_the_nearest() -> None:
    with pytest.raises(errors.InvalidSpec, match="There is no recipe 'paper-cfar': did you mean 'paper-cifar'") as told:
        jobfile.resolve(flags=DATA, recipe="paper-cfar")
    assert "orch recipes" in str(told.value.hint)
    with pytest.raises(errors.InvalidSpec, match="a recipe is text"):
        jobfile.parse(b"recipe = 3", origin="job.toml")


#: What would do nothing, what it lacks, and what makes it work.
IDLE: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"momentum": 0.5}, "optimizer sgd", {"optimizer": "sgd"}),
    ({"decay_norm": True}, "weight_decay", {"weight_decay": 0.1}),
    ({"lr_steps": ["0.2"]}, "schedule step", {"schedule": "step"}),
    ({"lr_gamma": "0.5"}, "schedule step", {"schedule": "step"}),
    ({"lr_end": "1e-5"}, "schedule cosine", {"schedule": "cosine"}),
    ({"randaugment_magnitude": "5"}, "randaugment", {"randaugment": 2}),
    ({"patience_metric": "loss"}, "patience", {"patience": 3}),
    ({"train": "head", "weights": "/w.pth", "mixup": "0.2"}, "train all or last-block", {"train": "all"}),
    ({"train": "head", "weights": "/w.pth", "flip": False}, "train all or last-block", {"train": "last-block"}),
    ({"crop_padding": "4", "crop_scale": ["0.5", "1"]}, "crop_padding 0", {"crop_padding": "0"}),
]


@pytest.mark.parametrize(("fields", "lacks", "mended"), IDLE)
def test_what_would_do_nothing_is_refused(fields: dict[str, Any], lacks: str, mended: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidSpec, match=f"would do nothing without {lacks}$"):
        jobfile.resolve(flags=DATA | fields)
    with pytest.raises(errors.InvalidSpec, match=f"would do nothing without {lacks}$"):
        jobfile.resolve(flags=DATA, file=jobfile.JobFile(origin="job.toml", fields=fields))
    assert not jobfile.resolve(flags=DATA | fields | mended).spec.idle()


def test_a_recipe_may_hold_what_a_flag_puts_out_of_use() -> None:
    spec = jobfile.resolve(flags=DATA | {"schedule": "cosine"}, recipe="paper-imagenet").spec
    assert spec.idle() == {"lr_steps": "schedule step"}

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import errors
from orchestrator.core import presets, specs


def test_defaults_are_the_notebook_s() -> None:
    spec = specs.JobSpec()
    assert (spec.data, spec.network, spec.stem) == ("cats_and_dogs", "densenet121", "cifar")
    assert (spec.growth_rate, spec.blocks, spec.reduction) == (32, (6, 12, 24, 16), 0.5)
    assert (spec.optimizer, spec.lr, spec.epochs, spec.batch_size) == ("adam", 1e-4, 5, 4)
    assert (spec.image_size, spec.resize, spec.flip, spec.loader_workers) == (224, 256, True, 2)
    assert (spec.mean, spec.std) == ((0.490, 0.449, 0.411), (0.231, 0.221, 0.230))


#: What is given, and what the spec holds: given before presets before defaults.
PRESETS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"network": "densenet161"}, {"growth_rate": 48, "blocks": (6, 12, 36, 24)}),
    ({"network": "densenet161", "growth_rate": 12}, {"growth_rate": 12, "blocks": (6, 12, 36, 24)}),
    ({"data": "digits"}, {"image_size": 32, "flip": False, "crop_scale": (0.8, 1.0)}),
    ({"data": "digits", "image_size": 64}, {"image_size": 64, "flip": False}),
    ({"network": "densenet_40_12"}, {"bottleneck": 0, "reduction": 1.0, "stem_channels": 16}),
    (
        {"network": "densenet121_imagenet", "weights": "imagenet"},
        {"stem": "imagenet", "transition_relu": True, "mean": (0.485, 0.456, 0.406)},
    ),
    (
        {"network": "densenet161_imagenet", "weights": "imagenet", "mean": (0, 0, 0), "dropout": 0.1},
        {"mean": (0, 0, 0)},
    ),
    ({"lr": "1e-3"}, {"lr": 0.001}),  # what PyYAML makes of 1e-3
]


@pytest.mark.parametrize(("given_fields", "expected"), PRESETS)
def test_presets_fill_what_is_not_given(given_fields: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = specs.parse(given_fields)
    assert {name: getattr(spec, name) for name in expected} == expected


#: What is refused, and a word of the message.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 0}, "epochs"),
    ({"epochs": -1}, "greater than or equal to 1"),
    ({"epochs": 1e9}, "100000"),
    ({"epochs": 2.5}, "epochs"),
    ({"data": "/srv/a\0b"}, "zero byte"),
    ({"lr": 0}, "lr"),
    ({"lr": -1e-4}, "greater than 0"),
    ({"lr": 1e9}, "lr"),
    ({"lr": float("nan")}, "lr"),
    ({"lr": float("inf")}, "lr"),
    ({"lr": "fast"}, "lr"),
    ({"batch_size": 1}, "batch_size"),  # BatchNorm needs two
    ({"compile": True, "memory": "lean"}, "not for memory lean"),
    ({"compile": True, "gpus": 2}, "not for gpus 2"),
    (
        {"compile": True, "train": "head", "weights": "imagenet", "network": "densenet121_imagenet"},
        "not for train head",
    ),
    ({"compile": "often"}, "compile"),
    ({"seed": -1}, "seed"),
    ({"data": ""}, "data"),
    ({"data_sha256": "abc"}, "64 hexadecimal"),
    ({"data_sha256": "A" * 64}, "lower case"),
    ({"network": "densenet12"}, "did you mean 'densenet121'"),
    ({"network": "resnet50"}, "unknown network"),
    ({"learning_rate": 1}, "unknown key 'learning_rate'"),
    ({"epoch": 5}, "did you mean 'epochs'"),
    ({"image_size": 7}, "image_size"),
    ({"image_size": 16, "stem": "imagenet"}, "at least 29 pixels"),
    ({"crop_scale": (0.9, 0.1)}, "smallest, largest"),
    ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
    ({"blocks": ()}, "blocks"),
    ({"blocks": (6, 0)}, "blocks"),
    ({"std": (0.2, 0.2, 0.0)}, "std"),
    ({"optimizer": "lion"}, "optimizer"),
    ({"nesterov": True}, "needs optimizer sgd"),
    ({"nesterov": True, "optimizer": "sgd", "momentum": 0}, "and a momentum"),
    ({"momentum": 1}, "momentum"),
    ({"weight_decay": -1}, "weight_decay"),
    ({"schedule": "linear"}, "schedule"),
    ({"lr_steps": (0.7, 0.5)}, "lr_steps must rise"),
    ({"lr_steps": (0.5, 1)}, "lr_steps"),
    ({"schedule": "cosine", "lr": 0.1, "lr_end": 0.2}, "above the learning rate"),
    ({"epochs": 5, "warmup_epochs": 5}, "leaves nothing of 5 epochs"),
    ({"clip_norm": 0}, "clip_norm"),
    ({"accumulate": 0}, "accumulate"),
    ({"batch_size": 1024, "accumulate": 65}, "more than 65,536 pictures"),
    ({"label_smoothing": 1}, "label_smoothing"),
    ({"mixup": -0.1}, "mixup"),
    ({"ema": 1}, "ema"),
    ({"patience": 0}, "patience"),
    ({"patience_metric": "f1"}, "patience_metric"),
    ({"randaugment_magnitude": 31}, "randaugment_magnitude"),
    ({"val_crop": 0}, "val_crop"),
    ({"progressive_sizes": (64,)}, "1 sizes, progressive_until 0 shares"),
    ({"progressive_sizes": (64, 96), "progressive_until": (0.5, 0.5)}, "progressive_until must rise"),
    ({"progressive_sizes": (16,), "progressive_until": (0.5,), "stem": "imagenet"}, "at least 29 pixels"),
    ({"checkpoint_minutes": 0}, "checkpoint_minutes"),
    ({"max_duration": -1}, "max_duration"),
    ({"bottleneck": -1}, "bottleneck"),
    ({"dropout": 1}, "dropout"),
    ({"stem_channels": 0}, "stem_channels"),
    ({"weights": "imagenet"}, "densenet121_imagenet"),  # the default network has another stem
    ({"weights": "imagenet", "network": "densenet264_imagenet"}, "no other network"),
    ({"weights": "imagenet", "network": "densenet121_imagenet", "growth_rate": 16}, "no other network"),
    ({"weights": "some/where.pth"}, "whole path"),
    ({"weights": "imagenet", "network": "densenet121_imagenet", "weights_sha256": "0" * 64}, "weights of a file"),
    ({"weights_sha256": "0" * 64}, "weights of a file"),
    ({"train": "head"}, "train head needs weights"),
    ({"train": "tail", "weights": "/w.pth"}, "train"),
    ({"head_epochs": 1}, "head_epochs 1 needs weights"),
    ({"head_epochs": 5, "weights": "/w.pth"}, "leaves nothing of 5 epochs"),
    ({"head_epochs": 1, "train": "head", "weights": "/w.pth"}, "there are none"),
    ({"head_lr": 0.1, "weights": "/w.pth"}, "head_lr is for head_epochs"),
]


@pytest.mark.parametrize(("given_fields", "word"), REFUSED)
def test_what_cannot_be_run_is_refused(given_fields: dict[str, Any], word: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        specs.parse(given_fields)
    assert word in caught.value.message
    assert "orch submit --help" in str(caught.value.hint)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        specs.parse({"epochs": 0, "lr": -1, "batchsize": 4})
    told = f"{caught.value.message} {caught.value.why}"
    assert all(word in told for word in ("epochs", "lr", "batchsize"))


def test_one_device_is_what_every_job_before_had() -> None:
    assert specs.JobSpec(gpus=1).digest() == specs.JobSpec().digest() != specs.JobSpec(gpus=2).digest()


@pytest.mark.parametrize(("gpus", "batch"), [(2, 3), (3, 5), (64, 127)])
def test_every_device_needs_two_pictures_of_a_batch(gpus: int, batch: int) -> None:
    with pytest.raises(errors.InvalidSpec, match=f"at least {2 * gpus}"):
        specs.parse({"gpus": gpus, "batch_size": batch})
    assert specs.parse({"gpus": gpus, "batch_size": specs.least_batch(gpus)}).gpus == gpus


@pytest.mark.parametrize(("gpus", "batch"), [(1, 2), ("3", 6), ("many", 2), (None, 2)])
def test_the_least_batch_is_known_of_any_number_of_devices(gpus: object, batch: int) -> None:
    assert specs.least_batch(gpus) == batch


def test_digest_is_of_the_content() -> None:
    assert specs.JobSpec().digest() == specs.parse({"epochs": 5, "network": "densenet121"}).digest()
    assert specs.JobSpec().digest() != specs.JobSpec(seed=1).digest()


#: What was given, and the digest that orch stored of it before there was a field beyond version 1's.
FIRST_DIGESTS: list[tuple[dict[str, Any], str]] = [
    ({}, "41d3e277b85b9cbd763764b49e3043b889d4dc1c04bf1e8d4084e3ecf46d34bc"),
    ({"data": "digits"}, "26661e67a1a704a7f1da7fdfaa9180bd24a817dfdbe5040409c7e8c092fbaf0b"),
    (
        {"network": "densenet_bc_40_12", "lr": 1e-3, "epochs": 7, "seed": 3},
        "fbda076f1a37d6429d3949c311a91cafaedc70a2ebf5575a2297e7ce7ce5a369",
    ),
]


@pytest.mark.parametrize(("given_fields", "digest"), FIRST_DIGESTS)
def test_a_spec_that_says_nothing_new_keeps_the_digest_of_version_1(given_fields: dict[str, Any], digest: str) -> None:
    assert specs.parse(given_fields).digest() == digest


@pytest.mark.parametrize("given_fields", [fields for fields, _ in FIRST_DIGESTS])
def test_a_spec_that_version_1_stored_means_what_it_meant(
    given_fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specs.parse(given_fields)
    stored = {name: value for name, value in spec.model_dump(mode="json").items() if name in specs.FIRST_FIELDS}
    monkeypatch.setitem(presets.DATA, spec.data, {"seed": 99})  # a preset that has grown since
    assert specs.JobSpec.restored({**stored, "seed": spec.seed}) == spec
    assert specs.JobSpec.restored({name: value for name, value in stored.items() if name != "seed"}).seed == 0
    assert spec.kept() == stored


def test_a_later_field_is_kept_and_hashed_only_where_it_says_something() -> None:
    plain, new = specs.JobSpec(), specs.JobSpec(optimizer="sgd", momentum=0.5)
    assert new.kept() == plain.kept() | {"optimizer": "sgd", "momentum": 0.5}
    assert len({plain.digest(), new.digest(), specs.JobSpec(optimizer="sgd").digest()}) == 3


def test_retries_are_a_table_or_a_text_of_reasons_that_may_pass() -> None:
    spec = specs.parse({"retries": "lost=10, oom=0"})
    assert spec == specs.parse({"retries": {"lost": 10, "oom": 0}})
    assert spec.kept() == specs.JobSpec().kept() | {"retries": {"lost": 10, "oom": 0}}
    assert specs.JobSpec.restored(json.loads(json.dumps(spec.kept()))) == spec
    for given_text, said in [
        ("bad_input=1", "would only come again"),
        ("lost", "retries"),
        ("lots=1", "retries"),
        ("lost=51", "less than or equal to 50"),
    ]:
        with pytest.raises(errors.InvalidSpec, match=said):
            specs.parse({"retries": given_text})


@pytest.mark.parametrize("side", [8, 32, 64, 100, 224, 299, 331, 2048])
def test_the_default_validation_resizes_as_the_notebook_does(side: int) -> None:
    assert specs.JobSpec(image_size=side).resize == int(side * 256 / 224)


@given(
    epochs=st.integers(1, 100_000),
    lr=st.floats(1e-12, 10),
    seed=st.integers(0, 2**63 - 1),
    blocks=st.lists(st.integers(1, 64), min_size=1, max_size=5),
)
def test_specs_survive_the_database(epochs: int, lr: float, seed: int, blocks: list[int]) -> None:
    spec = specs.parse({"epochs": epochs, "lr": lr, "seed": seed, "blocks": blocks})
    stored = json.loads(json.dumps(spec.model_dump(mode="json")))
    assert specs.JobSpec.restored(stored) == spec
    assert specs.JobSpec.restored(spec.kept()) == spec
    assert specs.JobSpec.restored(stored).digest() == spec.digest()


@given(
    st.dictionaries(
        st.sampled_from([*specs.JobSpec.model_fields, "x"]),
        st.none() | st.text() | st.integers() | st.floats() | st.lists(st.integers()),
    )
)
def test_nothing_but_our_own_error_comes_out(given_fields: dict[str, Any]) -> None:
    with contextlib.suppress(errors.InvalidSpec):
        spec = specs.parse(given_fields)
        assert specs.JobSpec.restored(spec.kept()) == spec


@pytest.mark.parametrize(("given", "keep"), [(3, 3), ("5", 5), (" all", "all"), ("all", "all")])
def test_keep_is_a_number_or_all(given: object, keep: object) -> None:
    spec = specs.parse({"keep": given})
    assert spec.keep == keep
    assert specs.JobSpec.restored(spec.kept()) == spec


@pytest.mark.parametrize("given", [0, -1, True, 1.5, "none", "", "1e3", None, "9" * 5000])
def test_anything_else_is_no_keep(given: object) -> None:
    with pytest.raises(errors.InvalidSpec, match="it is a number from 1 on, or all"):
        specs.parse({"keep": given})

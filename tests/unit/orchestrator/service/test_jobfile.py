"""Job files: both languages, the same errors, every value with its origin."""

import inspect
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.cli import submit
from orchestrator.service import jobfile, jobtext


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("job.toml", 'name = "cats"\ntags = ["a", "b"]\npriority = 2\nlr = 1e-4\nblocks = [6, 6, 6]\n'),
        ("job.yaml", "name: cats\ntags: [a, b]\npriority: 2\nlr: 1e-4\nblocks: [6, 6, 6]\n"),  # PyYAML: lr is text
        ("job", "name: cats\ntags: [a, b]\npriority: 2\nlr: 1.0e-4\nblocks: [6, 6, 6]\n"),
    ],
)
def test_toml_and_yaml_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    file = jobfile.load(write(tmp_path, name, text))
    resolved = jobfile.resolve(flags={}, file=file)
    assert (file.name, file.tags, file.priority) == ("cats", ("a", "b"), 2)
    assert resolved.spec.lr == 1e-4
    assert resolved.spec.blocks == (6, 6, 6)


def test_flags_beat_the_file_which_beats_presets_which_beat_defaults() -> None:
    file = jobfile.parse(b'data = "digits"\nlr = 0.5\nseed = 3\nflip = true\n', origin="job.toml")
    resolved = jobfile.resolve(flags={"lr": "0.25", "network": "densenet_tiny"}, file=file)
    assert resolved.spec.lr == 0.25
    assert resolved.spec.seed == 3
    assert resolved.spec.flip
    assert resolved.spec.image_size == 32
    expected = {
        "lr": "flag",
        "seed": "job.toml",
        "flip": "job.toml",
        "image_size": "data digits",
        "blocks": "network densenet_tiny",
        "epochs": "default",
    }
    assert {name: resolved.origins[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["flag", "recipe digits"])
def test_a_file_may_be_called_as_another_source_is(name: str) -> None:
    file = jobfile.parse(b"lr = 0.5\nseed = 3\n", origin=name)
    resolved = jobfile.resolve(flags={"lr": "0.25"}, file=file, recipe="digits")
    assert (resolved.spec.lr, resolved.spec.seed, resolved.spec.data) == (0.25, 3, "digits")
    assert (resolved.origins["lr"], resolved.origins["data"]) == ("flag", "recipe digits")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epoch = 3", "unknown key 'epoch': did you mean 'epochs'?"),
        (b"tag = ['a']", "unknown key 'tag': did you mean 'tags'?"),
        (b"after: [abc]", "it is a flag alone"),
        (b"epochs: -3", "epochs = -3"),
        (b"lr: fast", "lr = 'fast'"),
        (b"lr: .nan", "lr"),
        (b"name: 3", "a name is text"),
        (b"tags: {a: 1}", "tags are a list of text"),
        (b"priority: true", "a priority is a whole number"),
        (b"- epochs", "no job file"),
        (b"a: [1", "neither TOML nor YAML"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"#" * (jobtext.MAX_BYTES + 1), "larger than 100 kB"),
        (b"a: &a [1]\nb: *a\n", "an alias, *a"),
        (b"lr: 1\nepochs: 2\nlr: 3\n", "The key lr stands there twice"),
        (b"tags: " + b"[" * 5000, "nested too deep"),
        (b"lr: !!python/object/apply:os.getcwd []", "neither TOML nor YAML"),  # data, never code
    ],
)
def test_what_is_wrong_with_a_file_is_named(content: bytes, said: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        jobfile.resolve(flags={}, file=jobfile.parse(content, origin="job"))
    assert said in f"{caught.value.message} {caught.value.why}"


def test_a_toml_file_is_judged_as_toml() -> None:
    with pytest.raises(errors.InvalidSpec, match="not valid TOML"):
        jobfile.parse(b"epochs: 3", origin="job.toml")
    with pytest.raises(errors.InvalidSpec, match="not valid TOML"):
        jobfile.parse(b"tags = " + b"[" * 5000, origin="job.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidSpec, match=r"gone\.toml cannot be read"):
        jobfile.load(tmp_path / "gone.toml")


def test_an_empty_file_is_the_notebooks_job() -> None:
    assert jobfile.resolve(flags={}, file=jobfile.parse(b"", origin="-")).spec.network == "densenet121"


@pytest.mark.parametrize(
    ("data", "placed"),
    [
        ("digits", "digits"),
        ("pets", "{here}/pets"),
        ("./my pets.zip", "{here}/my pets.zip"),
        ("~/pets", "{here}/pets"),
        ("/on/another/host", "/on/another/host"),
        ("HTTPS://host/pets.zip", "HTTPS://host/pets.zip"),
        ("file:/srv/pets.zip", "file:/srv/pets.zip"),
    ],
)
def test_data_is_named_so_that_a_worker_elsewhere_finds_it(
    data: str, placed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "my pets.zip").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    resolved = jobfile.resolve(flags={"data": data})
    assert resolved.spec.data == placed.format(here=tmp_path)
    assert resolved.origins["data"] == "flag"


@pytest.mark.parametrize(
    "data", ["digit", "./gone", "ftp://host/pets.zip", "file:pets", "htp:/x", "~nobody!/x", "x" * 300]
)
def test_data_that_is_nothing_is_refused_before_it_waits(data: str) -> None:
    with pytest.raises(errors.InvalidSpec, match="There is no data set") as refused:
        jobfile.resolve(flags={"data": data})
    assert ("did you mean 'digits'?" in refused.value.message) is (data == "digit")


def test_flags_that_no_file_has_are_flags_and_no_keys() -> None:
    flags = inspect.signature(submit.submit).parameters
    assert set(jobfile.FLAGS_ALONE) <= set(flags) - set(jobfile.schema()["properties"])

"""Which sources a job may name, and which of them a worker takes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import config
from tests.unit.worker.data.conftest import Fails
from worker.data import sources

Make = Callable[..., config.Settings]


@pytest.mark.parametrize(
    ("data", "kind", "location"),
    [
        ("cats_and_dogs", "url", "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip"),
        ("digits", "packaged", str(sources.DIGITS)),
        ("http://host/set.zip", "url", "http://host/set.zip"),
        ("HTTPS://host/set.zip?key=1", "url", "HTTPS://host/set.zip?key=1"),
        ("/data/pets", "path", "/data/pets"),
        ("file:/data/pets.zip", "path", "/data/pets.zip"),
        ("file:///data/my%20pets", "path", "/data/my pets"),
        ("file://localhost/data", "path", "/data"),
    ],
)
def test_a_source_is_told_by_its_text(data: str, kind: str, location: str) -> None:
    source = sources.parse(data)
    assert (source.kind, source.location) == (kind, location)


@pytest.mark.parametrize(
    "data",
    [
        "pets",  # no known name
        "./pets",  # the worker's working directory is nobody's business
        "ftp://host/set.zip",
        "file://elsewhere/data",  # another host's disk
        "file:pets",
        "file:/pets%00.zip",
        "gopher:x",
    ],
)
def test_anything_else_is_refused(data: str, fails: Fails) -> None:
    with fails("There is no data set"):
        sources.parse(data)


def test_the_nearest_known_name_is_offered(fails: Fails) -> None:
    with fails("did you mean 'digits'?"):
        sources.parse("digit")


def test_credentials_show_in_no_label_and_no_error(fails: Fails) -> None:
    assert "s3cret" not in sources.parse("https://user:s3cret@host/x.zip?token=s3cret").label
    with fails("ftp://user:***@host"):
        sources.parse("ftp://user:s3cret@host/x")


def test_sources_have_names_of_their_own_in_the_cache() -> None:
    texts = ("digits", "/data", "http://host/a", "http://host/b", "cats_and_dogs")
    assert len({sources.parse(text).key for text in texts}) == len(texts)


def test_a_missing_path_is_named(make_settings: Make, tmp_path: Path, fails: Fails) -> None:
    with fails("There is no /"):
        sources.check_allowed(sources.parse(f"{tmp_path}/nothing"), make_settings())


def test_what_may_have_no_end_is_not_read(make_settings: Make, tmp_path: Path, fails: Fails) -> None:
    os.mkfifo(tmp_path / "pipe")
    for endless in ("/dev/zero", str(tmp_path / "pipe")):
        with fails("neither a folder nor a file"):
            sources.check_allowed(sources.parse(endless), make_settings())


def test_only_a_shared_worker_without_roots_takes_no_path(make_settings: Make, tmp_path: Path, fails: Fails) -> None:
    sources.check_allowed(sources.parse(str(tmp_path)), make_settings())  # the database is embedded
    with fails("takes no data from its own disk"):
        sources.check_allowed(sources.parse(str(tmp_path)), make_settings(database_url="postgresql://host/db"))


@pytest.mark.parametrize("kind", ["beside", "dotted", "linked", "absent"])
def test_what_is_not_below_a_root_is_refused(make_settings: Make, tmp_path: Path, kind: str, fails: Fails) -> None:
    root, secret = tmp_path / "root", tmp_path / "root-secret"
    (root / "set").mkdir(parents=True)
    secret.mkdir()
    (root / "link").symlink_to(secret)
    data = {"beside": secret, "dotted": root / ".." / "root-secret", "linked": root / "link", "absent": tmp_path / "x"}
    settings = make_settings(data_roots=(root,), database_url="postgresql://host/db")
    sources.check_allowed(sources.parse(f"file:{root}/set"), settings)
    with fails("outside the folders"):
        sources.check_allowed(sources.parse(str(data[kind])), settings)

"""What is shown of a value that may hold a secret."""

import pytest

from orchestrator.core import masking


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:s3cret@host:6379/0", "redis://:***@host:6379/0"),
        ("postgresql://me:s3cret@[::1]:5432/orch?sslpassword=s3cret", "postgresql://me:***@[::1]:5432/orch?***"),
        ("sqlite:////var/orch.db", "sqlite:////var/orch.db"),  # four slashes begin an absolute path, two a host
        ("redis+socket:///run/broker.sock", "redis+socket:///run/broker.sock"),
        ("https://ada:s3cret@host/set.zip", "https://***@host/set.zip"),
        ("HTTPS://s3cret@host/set.zip", "HTTPS://***@host/set.zip"),  # a token is often given as the account
        ("ada:s3cret@host/set.zip", "***@host/set.zip"),  # somebody forgot the scheme
        ("https://host/a@b/set.zip", "https://host/a@b/set.zip"),
        ("https://host/set.zip?key=s3cret#s3cret", "https://host/set.zip?***"),
        ("redis://:s3#cret@host/0", "redis://***"),  # should have been %23: a parser takes the host for `:s3`
        ("redis://me:s3/cret@host/0", "redis://***"),
        ("redis://:s3cret@[bad", "redis://:***@[bad"),
    ],
)
def test_a_url_is_shown_as_it_is_but_for_its_secrets(url: str, shown: str) -> None:
    assert masking.url(url) == shown


def test_a_path_is_shown_whole() -> None:
    assert masking.data("/srv/a@b/what?/set.zip") == "/srv/a@b/what?/set.zip"
    assert masking.data("file:///srv/a@b") == "file:///srv/a@b"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("fast", "'fast'"),
        (-3, "-3"),
        ("https://ada:s3cret@host/x", "'https://***@host/x'"),
        (["https://ada:s3cret@host/x"], "a list"),
        ("two\nlines", "'two\\nlines'"),
        ("x" * 1000, "'" + "x" * 79 + "…"),
    ],
)
def test_a_value_is_quoted_in_one_short_line_without_secrets(given: object, shown: str) -> None:
    assert masking.value(given) == shown


def test_a_number_that_python_does_not_write_out_is_quoted_too() -> None:
    assert masking.value(1 << 50_000) == "a number of thousands of digits"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("https://hooks.example.org/services/T0/B0/canary?x=canary", "https://hooks.example.org/***"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/***"),
        ("https://ada:canary@host/path", "https://***"),
        ("https://ada:can/ary@host", "https://***"),
        ("tgram://canary/canary", "tgram://***"),
        ("mailtos://ada:canary@example.org", "mailtos://***"),
        ("canary", "***"),
    ],
)
def test_of_a_target_only_the_host_of_a_webhook_is_shown(target: str, shown: str) -> None:
    assert masking.target(target) == shown

import pytest

from orchestrator.core import diffs

#: Lines of a difference with a secret in it, and what is shown of them.
SECRETS = [
    ('+password = "canary1"', '+password = "***"'),
    ("-    'api_key': 'canary1',", "-    'api_key': '***',"),
    ("+export HF_TOKEN=canary1", "+export HF_TOKEN=***"),
    ("+AWS_SECRET_ACCESS_KEY: canary1 x", "+AWS_SECRET_ACCESS_KEY: ***"),
    (" db_password: canary1", " db_password: ***"),
    ("+url = postgresql://ada:canary1@host/x", "+url = postgresql://***@host/x"),
    ("+  # ghp_canarycanarycanary1", "+  # ***"),
    ("-sk-canarycanarycanary1", "-***"),
]

#: Lines that only look like it.
PLAIN = [
    "+tokens = tokenizer(text)",
    "+def login(password: str, token: str) -> None:",
    "+    password: str",
    "+see https://example.org/a@b",
    "+secret = read_secret()",
    "literal password = 'in a header'",
]


@pytest.mark.parametrize(("line", "shown"), SECRETS)
def test_what_looks_like_a_secret_is_masked(line: str, shown: str) -> None:
    assert diffs.masked(f"a\n{line}\nb") == (f"a\n{shown}\nb", 1)


@pytest.mark.parametrize("line", PLAIN)
def test_what_does_not_stays(line: str) -> None:
    assert diffs.masked(line) == (line, 0)


def test_a_private_key_is_masked_whole() -> None:
    key = "+-----BEGIN RSA PRIVATE KEY-----\n+canary1\n+canary2\n+-----END RSA PRIVATE KEY-----\n+after"
    shown, lines = diffs.masked(key)
    assert ("canary" in shown, lines, shown.endswith("+after")) == (False, 2, True)

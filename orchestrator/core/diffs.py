"""A difference as git shows it, without what looks like a secret in it. Pure rules."""

import re
from collections.abc import Iterable, Iterator

_CONFIDENTIAL = "(?:password|passwd|passphrase|secret|token|api_?key|access_?key|private_?key|credential)"

#: What stands for a secret in a line of a difference, and what is kept of it.
_RULES = (
    (re.compile(rf"""(?i)({_CONFIDENTIAL}\w*["']?\s*[:=]\s*)(["'])[^"']{{4,}}\2"""), r"\1\2***\2"),
    (re.compile(rf"^(.\s*(?:export\s+)?[A-Z0-9_]*{_CONFIDENTIAL.upper()}[A-Z0-9_]*\s*[:=]\s*)[^\s\"'].*"), r"\1***"),
    # Without quotes, as in YAML: a value with a digit in it, which a type's name has not.
    (re.compile(rf"(?i)^(.\s*[\w.-]*{_CONFIDENTIAL}[\w.-]*\s*:\s*)(?=\S*\d)[^\s\"'].*"), r"\1***"),
    (re.compile(r"""(\w://)[^\s/@"']*:[^\s/@"']+@"""), r"\1***@"),
    (re.compile(r"\b(?:gh[opsu]_|github_pat_|glpat-|hf_|sk-|xox[abp]-|AKIA)[\w-]{12,}"), "***"),
)
#: What no line with a secret is without: most lines are looked at no further.
_SUSPECT = re.compile(r"(?i)pass|secret|token|key|credential|://|gh[opsu]_|github_pat_|glpat-|hf_|sk-|xox|AKIA")
_KEY_BEGINS, _KEY_ENDS = re.compile("-----BEGIN .*PRIVATE KEY-----"), re.compile("-----END .*PRIVATE KEY-----")


def masked(diff: str) -> tuple[str, int]:
    """Return a difference without what looks like a secret, and in how many lines there was some.

    It is no guarantee: a secret can look like anything.
    """
    before = diff.split("\n")
    after = list(_masked(before))
    return "\n".join(after), sum(one != other for one, other in zip(before, after, strict=True))


def _masked(lines: Iterable[str]) -> Iterator[str]:
    in_key = False
    for line in lines:
        suspect = in_key or _SUSPECT.search(line) is not None
        if not suspect or not line.startswith(("+", "-", " ")):  # what git says, and binary files
            yield line
            continue
        in_key = (in_key or _KEY_BEGINS.search(line) is not None) and not _KEY_ENDS.search(line)
        if in_key and not _KEY_BEGINS.search(line):
            yield f"{line[0]}***"
            continue
        for rule, kept in _RULES:
            line = rule.sub(kept, line)  # noqa: PLW2901 - it is what the rules before have left
        yield line

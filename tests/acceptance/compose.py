"""docker-compose.yml outside containers: its services as processes, with paths and ports of a scratch folder."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator import config
from tests.support import ports

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$(?:\$|\{(\w+):-(\w*)\})")


def services() -> dict[str, dict[str, Any]]:
    """Return the services with anchors, merges and variables (at their defaults) resolved."""
    found: dict[str, dict[str, Any]] = document()["services"]
    return found


def document() -> dict[str, Any]:
    """Return the whole file."""
    text = VARIABLE.sub(lambda match: match[2] if match[1] else "$", (ROOT / "docker-compose.yml").read_text("utf-8"))
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def image_environment() -> dict[str, str]:
    """Return the ORCH_ variables that the Dockerfile sets."""
    return dict(re.findall(r"\b(ORCH_\w+)=(\S+)", (ROOT / "Dockerfile").read_text("utf-8")))


def image_healthcheck() -> list[str]:
    """Return the worker images' healthcheck, as a compose file would say it."""
    (command,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    return ["CMD", *yaml.safe_load(command)]


@dataclass(frozen=True)
class Place:
    """A scratch folder that stands for the containers' paths, and two ports."""

    folder: Path
    broker_port: int
    postgres_port: int

    def moved(self, text: str) -> str:
        """Return `text` with the paths and the port of the containers as they are here."""
        for path in ("/run/secrets", "/srv", "/var/lib/orch", "/data"):
            text = re.sub(rf"(?<![\w/]){path}\b", f"{self.folder}{path}", text)
        return text.replace("port 6379", f"port {self.broker_port}")

    def environment(self, service: Mapping[str, Any], **extra: str) -> dict[str, str]:
        """Return the environment of a service's process."""
        inherited = config.child_environment(config.Settings())
        own = image_environment() | service.get("environment", {})
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{inherited['PATH']}"
        return inherited | {key: self.moved(value) for key, value in own.items()} | {"PATH": path} | extra

    def start(self, name: str, *, user: str | None = None, **extra: str) -> subprocess.Popen[str]:
        """Start a service's command as written."""
        service = services()[name]
        with (self.folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [self.moved(word) for word in service["command"]],
                env=self.environment(service, **extra),
                cwd=self.folder,
                user=user,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def healthy(self, name: str, **extra: str) -> bool:
        """Run a service's healthcheck as written, here or in its image."""
        service = services()[name]
        kind, *words = service["healthcheck"]["test"] if "healthcheck" in service else image_healthcheck()
        command = words if kind == "CMD" else ["sh", "-c", *words]
        done = subprocess.run(
            [self.moved(word) for word in command],
            env=self.environment(service, **extra),
            cwd=self.folder,
            check=False,
            capture_output=True,
            timeout=120,
        )
        return done.returncode == 0

    def secret(self, name: str) -> str:
        """Return one of the secrets."""
        return (self.folder / "run" / "secrets" / name).read_text("utf-8").strip()

    def log(self, name: str) -> str:
        """Return what a service has said."""
        return (self.folder / f"{name}.log").read_text("utf-8")


@contextlib.contextmanager
def scratch() -> Iterator[Place]:
    """Make the scratch folder, with secrets that name this host."""
    # Not below pytest's own temporary folder: PostgreSQL runs as another user when the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="orch-compose-"))
    folder.chmod(0o755)
    broker, postgres = ports.reserved(), ports.reserved()
    place = Place(folder, ports.number(broker), ports.number(postgres))
    try:
        for name in ("bin", "run", "data", "srv", "pg"):
            (folder / name).mkdir()
        subprocess.run(["sh", ROOT / "docs" / "secrets.sh"], cwd=folder / "run", check=True, capture_output=True)
        for name, port in (("broker_url", place.broker_port), ("database_url", place.postgres_port)):
            local = re.sub(r"@[^/]+", f"@127.0.0.1:{port}", place.secret(name))
            (folder / "run" / "secrets" / name).write_text(local, "utf-8")
        yield place
    finally:
        for held in (broker, postgres):
            held.close()
        shutil.rmtree(folder, ignore_errors=True)

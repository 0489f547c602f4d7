import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import config
from tests.acceptance import compose

SERVICES = compose.services()
LASTING = ["broker", "postgres", "worker", "worker-cpu"]
OURS = ["migrate", "worker", "worker-cpu", "cli"]
WORKERS = ["worker", "worker-cpu"]


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_file_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(check, cwd=compose.ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
class TestEveryService:
    def test_runs_as_an_ordinary_user(self, name: str) -> None:
        user, group = SERVICES[name]["user"].split(":")
        assert int(user) > 0
        assert int(group) > 0

    def test_cannot_write_its_root(self, name: str) -> None:
        assert SERVICES[name]["read_only"] is True
        assert any(mount.split(":")[0] == "/tmp" for mount in SERVICES[name]["tmpfs"])  # noqa: S108 - a container's

    def test_has_no_privileges(self, name: str) -> None:
        service = SERVICES[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode"} & service.keys()

    def test_publishes_no_port(self, name: str) -> None:
        assert "ports" not in SERVICES[name]

    def test_mounts_named_volumes_only(self, name: str) -> None:
        named = compose.document()["volumes"]
        assert all(volume.split(":")[0] in named for volume in SERVICES[name].get("volumes", []))

    def test_gets_its_secrets_as_files(self, name: str) -> None:
        service = SERVICES[name]
        assert service["secrets"]
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|URL|TOKEN|SECRET", key):
                assert key.endswith("_FILE")
                assert Path(value).parent == Path("/run/secrets")
                assert Path(value).name in service["secrets"]

    def test_has_an_init_that_reaps_and_forwards_signals(self, name: str) -> None:
        assert SERVICES[name]["init"] is True


def test_broker_and_database_ask_for_their_password() -> None:
    assert "requirepass $(cat /run/secrets/broker_password)" in SERVICES["broker"]["command"][-1]
    assert "--auth=scram-sha-256" in SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"]
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/database_password"  # noqa: S105 - a path


def test_no_secret_stands_in_an_argument_list_or_an_image(tmp_path: Path) -> None:
    subprocess.run(["sh", compose.ROOT / "docs" / "secrets.sh"], cwd=tmp_path, check=True, capture_output=True)
    text = (compose.ROOT / "docker-compose.yml").read_text("utf-8") + (compose.ROOT / "Dockerfile").read_text("utf-8")
    secrets = list((tmp_path / "secrets").iterdir())
    assert secrets
    for path in secrets:
        assert path.read_text("utf-8").strip() not in text
    assert not re.search(r"--(requirepass|pass|password|a)[ =]", text)
    _, everything, *kept, caches = (compose.ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert (everything, caches) == ("*", "**/__pycache__")  # what `COPY . .` leaves out, but for these
    assert set(kept) == {"!pyproject.toml", "!README.md", "!LICENSE", "!orchestrator", "!worker", "!alembic"}
    assert "secrets/" in (compose.ROOT / ".gitignore").read_text("utf-8").split()


@pytest.mark.parametrize("name", LASTING)
def test_lasting_service_restarts_and_says_how_it_is(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    if name in WORKERS:
        assert compose.image_healthcheck() == ["CMD", "python", "-m", "worker.health"]
    else:
        assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", OURS)
def test_image_has_the_target_that_is_built(name: str) -> None:
    dockerfile = (compose.ROOT / "Dockerfile").read_text("utf-8")
    target = SERVICES[name]["build"]["target"]
    assert SERVICES[name]["image"] == f"orch:{target}"
    assert re.search(rf"^FROM \w+ AS {target}$", dockerfile, re.MULTILINE)
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == [SERVICES[name]["user"]]


def test_broker_and_database_are_reached_by_orch_alone() -> None:
    networks = compose.document()["networks"]
    assert networks["backend"]["internal"] is True
    assert {name for name, service in SERVICES.items() if service["networks"] == ["backend"]} == {"broker", "postgres"}


@pytest.mark.parametrize("name", WORKERS)
def test_container_is_killed_later_than_a_drain_ends(name: str) -> None:
    service = SERVICES[name]
    assert seconds(service["stop_grace_period"]) >= float(service["environment"]["ORCH_DRAIN"]) + 15


@pytest.mark.parametrize("name", WORKERS)
def test_workers_start_on_a_migrated_database(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "broker": {"condition": "service_healthy"},
    }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", WORKERS)
def test_workers_share_locks_artifacts_and_data(name: str) -> None:
    targets = {volume.split(":")[1] for volume in SERVICES[name]["volumes"]}
    environment = compose.image_environment()
    assert targets == {environment[key] for key in ("ORCH_LOCK_DIR", "ORCH_ARTIFACTS", "ORCH_DATA_CACHE")}


@pytest.mark.parametrize("name", OURS)
def test_variables_are_settings(name: str) -> None:
    known = {config.variable(field) for field in config.Settings.model_fields}
    secrets = {config.variable(field) + "_FILE" for field in config.SECRETS}
    assert (SERVICES[name]["environment"].keys() | compose.image_environment().keys()) <= known | secrets


def test_every_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    def make() -> dict[str, str]:
        subprocess.run(["sh", compose.ROOT / "docs" / "secrets.sh"], cwd=tmp_path, check=True, capture_output=True)
        return {path.name: path.read_text("utf-8") for path in (tmp_path / "secrets").iterdir()}

    first = make()
    assert first.keys() == compose.document()["secrets"].keys()
    assert first["broker_password"] != first["database_password"]
    assert first["broker_password"].strip() in first["broker_url"]
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert make() == first

import multiprocessing
import subprocess
import tempfile
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from orchestrator import config, errors, sockets
from orchestrator.core import states
from orchestrator.queue import app as queue_app
from orchestrator.queue import dispatch, embedded, messages
from tests.support import running
from tests.support.waiting import until


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[config.Settings]:
    settings = config.Settings(home=tmp_path / "home")
    yield settings
    embedded.stop(settings)


def _pid(settings: config.Settings) -> int:
    return int(embedded.state(settings)["process_id"])


def test_doorbells_survive_a_restart(settings: config.Settings) -> None:
    embedded.ensure(settings)
    doorbell = dispatch.Doorbell(settings)
    doorbell.ring(states.Stage.TRAIN, 3)
    psutil.Process(_pid(settings)).kill()
    until(lambda: not embedded.answers(settings))
    with pytest.raises(errors.BrokerUnavailable):
        doorbell.waiting([states.Stage.TRAIN])
    embedded.ensure(settings)
    assert doorbell.waiting(states.Stage) == {
        states.Stage.DOWNLOAD: 0,
        states.Stage.TRAIN: 3,
        states.Stage.EVALUATE: 0,
    }


def test_a_home_may_have_any_name() -> None:
    with tempfile.TemporaryDirectory(prefix="o #%25") as home:  # short: its own folder holds the socket
        settings = config.Settings(home=Path(home))
        assert sockets.folder(settings) == settings.run_dir
        try:
            embedded.ensure(settings)
            dispatch.Doorbell(settings).ring(states.Stage.TRAIN)
            with queue_app.create(settings).connection_for_read() as connection:
                channel: Any = connection.default_channel
                assert channel.client.llen(messages.QUEUES[states.Stage.TRAIN]) == 1
        finally:
            embedded.stop(settings)


def test_a_server_that_runs_is_not_started_again(settings: config.Settings) -> None:
    embedded.ensure(settings)
    first = _pid(settings)
    embedded.ensure(settings)
    assert _pid(settings) == first


def test_several_nodes_that_start_at_once_start_one_server(settings: config.Settings) -> None:
    context = multiprocessing.get_context("spawn")
    nodes = [context.Process(target=embedded.ensure, args=(settings,)) for _ in range(4)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join(60)
        assert node.exitcode == 0
    path = str(sockets.broker(settings))
    servers = [
        process for process in psutil.process_iter(["cmdline"]) if path in " ".join(process.info["cmdline"] or [])
    ]
    assert len(servers) == 1


def test_a_server_that_hangs_is_not_joined_by_a_second_one_on_its_files(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.ensure(settings)
    first = _pid(settings)
    with monkeypatch.context() as hanging:
        hanging.setattr(embedded, "answers", lambda _: False)
        hanging.setattr(embedded, "_START_SECONDS", 0.1)
        with pytest.raises(errors.BrokerUnavailable) as refused:
            embedded.ensure(settings)
    assert "does not answer" in (refused.value.why or "")
    assert _pid(settings) == first


def test_one_that_is_just_ending_is_followed_by_another(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reaches it any more, and it still has its lock."""
    settings.run_dir.mkdir(parents=True)
    answers, looks = embedded.answers, list[config.Settings]()
    with (settings.run_dir / "broker.lock").open("w") as ending:
        flock(ending, LOCK_EX)

        def look(of: config.Settings) -> bool:
            looks.append(of)
            if len(looks) == 2:
                ending.close()
            return answers(of)

        monkeypatch.setattr(embedded, "answers", look)
        embedded.ensure(settings)
    assert answers(settings)


@pytest.mark.parametrize("answered", [False, True])
def test_a_server_that_hangs_is_killed_and_what_it_acknowledged_is_kept(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, *, answered: bool
) -> None:
    embedded.ensure(settings)
    dispatch.ring(settings, states.Stage.TRAIN)
    server = psutil.Process(_pid(settings))
    server.suspend()
    with monkeypatch.context() as patch:
        if answered:  # just before
            patch.setattr(embedded, "answers", lambda _: True)
        assert embedded.stop(settings)
    until(lambda: running.gone(server))  # its files are closed before it has ended
    assert not sockets.broker(settings).exists()
    assert not embedded.stop(settings)  # the pid in its file is nobody's now
    embedded.ensure(settings)
    assert dispatch.Doorbell(settings).waiting([states.Stage.TRAIN]) == {states.Stage.TRAIN: 1}


def test_a_foreign_pid_in_the_server_s_file_is_left_alone(settings: config.Settings) -> None:
    (settings.home / "broker").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        (settings.home / "broker" / "server.pid").write_text(str(other.pid), encoding="ascii")
        assert not embedded.stop(settings)
        assert other.poll() is None
        other.kill()


def test_a_binary_that_cannot_be_run_is_said_in_words(tmp_path: Path) -> None:
    settings = config.Settings(home=tmp_path, broker_binary=tmp_path / "no-such-server")
    with pytest.raises(errors.BrokerUnavailable, match="did not start") as failed:
        embedded.ensure(settings)
    assert "no-such-server" in (failed.value.why or "")


def test_its_socket_is_for_its_user_alone(settings: config.Settings) -> None:
    embedded.ensure(settings)
    socket = sockets.broker(settings)
    assert socket.stat().st_mode & 0o077 == 0
    assert socket.parent.stat().st_mode & 0o077 == 0


def test_a_home_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    settings = config.Settings(home=tmp_path / ("long" * 30))
    assert len(str(sockets.broker(settings))) < 108
    embedded.ensure(settings)
    try:
        dispatch.ring(settings, states.Stage.DOWNLOAD)
    finally:
        assert embedded.stop(settings)


def test_a_short_folder_that_others_may_use_is_not_used(tmp_path: Path) -> None:
    settings = config.Settings(home=tmp_path / ("long" * 30))
    folder = sockets.broker(settings).parent
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        for use in (embedded.ensure, embedded.stop):
            with pytest.raises(errors.InvalidSetting, match="not safe"):
                use(settings)
    finally:
        folder.rmdir()


def test_a_broker_that_is_away_is_said_in_words(settings: config.Settings) -> None:
    with pytest.raises(errors.BrokerUnavailable) as away:
        dispatch.ring(settings, states.Stage.TRAIN)
    assert away.value.why is not None
    assert str(settings.home) in away.value.why


def test_a_broker_that_is_away_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.Settings(home=tmp_path, broker_url=SecretStr("redis://127.0.0.1:1/0"))
    # Left to itself, it tries for ten seconds.
    monkeypatch.setattr("redis.retry.sleep", lambda _: pytest.fail("it waits, to ask again"))
    with pytest.raises(errors.BrokerUnavailable) as away:
        dispatch.Doorbell(settings).waiting(states.Stage)
    assert "Connection refused" in (away.value.why or "")
    assert "ORCH_BROKER_URL" in (away.value.hint or "")


def test_a_password_never_shows(tmp_path: Path) -> None:
    settings = config.load(home=tmp_path, broker_url="redis://user:hunter2@127.0.0.1:1/0")
    with pytest.raises(errors.BrokerUnavailable) as away:
        dispatch.ring(settings, states.Stage.TRAIN)
    assert "hunter2" not in f"{away.value.message} {away.value.why} {away.value.hint}"


def test_a_server_that_cannot_start_names_its_log(tmp_path: Path) -> None:
    settings = config.Settings(home=tmp_path, broker_binary=Path("/bin/false"))
    with pytest.raises(errors.BrokerUnavailable, match="did not start") as failed:
        embedded.ensure(settings)
    assert "server.log" in (failed.value.hint or "")

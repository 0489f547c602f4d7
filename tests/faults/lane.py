"""What the cases that one process walks have in common: data, its server, broker, database server, a look at success.

`python -m tests.faults.lane FOLDER` reads a case a line and writes a result a line.
"""

import argparse
import contextlib
import ctypes
import functools
import gc
import hashlib
import http.server
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tarfile
import time
import traceback
import zipfile
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from orchestrator import config, sockets
from orchestrator.core import weights
from orchestrator.queue import embedded
from orchestrator.service import bell, provenance
from orchestrator.store import migrations, sql
from tests.contract import test_lost_answers
from tests.faults import cases
from tests.support import compiled, pictures
from tests.support.waiting import patiently
from worker import forkserver
from worker.data import formats, named

#: Several lanes may share a server.
_TEMPLATE = f"walk_{os.getpid()}"

#: What nodes, commands, and the stages' processes would import, each for itself.
_IMPORTED = (
    *forkserver.PRELOAD,
    "celery.app.amqp",
    "celery.app.events",
    "celery.backends.base",
    "celery.events",
    "celery.fixups.django",
    "celery.loaders.app",
    "encodings.ascii",
    "encodings.cp437",
    "kombu.transport.redis",
    "numpy.ctypeslib",
)


#: What comes in drops is cancelled before it has come: it takes more than a minute.
_SLOW_BYTES = 100_000


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves the data sets; what is named `slow` comes in drops."""

    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Take what is told of a job."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if "slow" not in self.path:
            shutil.copyfileobj(source, outputfile)
            return
        with contextlib.suppress(OSError):
            while piece := source.read(64):
                outputfile.write(piece)
                time.sleep(0.05)


class Lane:
    """What the cases share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres: str | None = None  #: URL of a server, once a case has brought one
        (folder / "www").mkdir(parents=True)
        self.archive = folder / "www" / "tiny.zip"
        with zipfile.ZipFile(self.archive, "w") as archive:
            for name, content in pictures.members(size=(16, 16), splits={"train": 4, "validation": 2}).items():
                archive.writestr(name, content)
        self.archive.with_name("slow.zip").write_bytes(bytes(_SLOW_BYTES))
        migrated = config.Settings(home=folder / "migrated")
        sql.open_store(migrated).close()
        self._migrated = migrated.home / "orch.db"
        self._warm()
        gc.collect()
        gc.freeze()  # or the collector would write to every page that the forked processes share
        self._broker = config.Settings(home=folder / "broker-home")
        embedded.ensure(self._broker)
        self.broker_url = f"redis+socket://{sockets.broker(self._broker)}"
        listener = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Files, directory=str(self.archive.parent))
        )
        self.url = f"http://127.0.0.1:{listener.server_address[1]}"
        self._server = os.fork()
        if self._server == 0:
            die_with_parent()
            listener.serve_forever()
        listener.server_close()

    def _warm(self) -> None:
        """Let whatever is forked from now on find compiled what it writes into a database."""
        settings = config.Settings(home=self.folder / "warm")
        sql.make_home(settings)
        for write in test_lost_answers.CASES.values():
            shutil.copy(self._migrated, settings.home)
            with contextlib.closing(sql.open_store(settings)) as store:
                write.act(store, write.scene(store))

    def serve_weights(self, checkpoint: Path) -> None:
        """Serve a checkpoint's weights, and let whatever is forked from now on take them for those of ImageNet."""
        name = f"walk-{hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:8]}.pth"
        shutil.copy(checkpoint, self.archive.with_name(name))
        vars(weights)["imagenet_file"] = lambda _shape: name

    def serve_named(self, name: str) -> Path:
        """Serve the usual pictures as one of torchvision's sets to whatever is forked from now on; return its file."""
        packed = self.archive.with_name("named.tgz")
        with zipfile.ZipFile(self.archive) as archive, tarfile.open(packed, "w:gz") as tar:
            for path in sorted(archive.namelist()):
                content, (split, *inside) = archive.read(path), Path(path).with_suffix(".JPEG").parts
                member = tarfile.TarInfo("/".join(("set", split[:3].replace("tra", "train"), *inside)))
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        file = named.File(
            f"{self.url}/{packed.name}", hashlib.md5(packed.read_bytes(), usedforsecurity=False).hexdigest()
        )
        named.SETS[name] = named.Known(files=(file,), read=formats.imagenette({"cats": "cats", "dogs": "dogs"}))
        return packed

    def close(self) -> None:
        os.kill(self._server, signal.SIGKILL)
        os.waitpid(self._server, 0)
        embedded.stop(self._broker)

    def make_database(self, database: str, home: Path) -> str | None:
        """Make a database with our schema and no rows, and return its URL; None where it is the home's own file."""
        if database == cases.SQLITE:
            shutil.copy(self._migrated, home)
            return None
        if not self._administer("SELECT 1 FROM pg_database WHERE datname = %s", _TEMPLATE):
            self._administer(f"CREATE DATABASE {_TEMPLATE}")
            patiently(migrations.upgrade, self._url(_TEMPLATE))
        name = f"{_TEMPLATE}_{time.monotonic_ns()}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        return self._url(name)

    def drop_database(self, url: str) -> None:
        self._administer(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def _url(self, name: str) -> str:
        return make_url(self.postgres or "").set(database=name).render_as_string(hide_password=False)

    def _administer(self, statement: str, *values: str) -> list[Any]:
        with psycopg.connect(self.postgres or "", autocommit=True) as connection:
            done = connection.execute(statement.encode(), values)
            return done.fetchall() if done.description else []


def die_with_parent() -> None:
    """Let the kernel kill this process when the lane dies (https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> None:
    """Walk the cases of standard input."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.lane")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    for name in _IMPORTED:
        importlib.import_module(name)
    from tests.faults import scenarios  # noqa: PLC0415 - behind the arguments

    out = os.fdopen(os.dup(1), "w")
    compiled.share()
    # A slow machine is no git and no bell that says nothing: what they say would not be heard, and a place not reached.
    bell.PATIENCE = provenance.PATIENCE = 60
    with contextlib.closing(Lane(given.folder)) as shared:
        for line in sys.stdin:
            began, spent = time.monotonic(), _spent()
            told = json.loads(line)
            shared.postgres = told.pop("postgres")
            try:
                case = cases.Case(**told | {"places": tuple(told["places"])})
                error, left = scenarios.walk(shared, case)
            except Exception:  # noqa: BLE001 - it is the case's result
                error, left = traceback.format_exc(), {}
            result = {"seconds": time.monotonic() - began, "core": _spent() - spent, "error": error, "left": left}
            out.write(json.dumps(result) + "\n")
            out.flush()


def _spent() -> float:
    """Return the core seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()

"""Pictures decoded once: their pixels on this host's disk, added while an epoch reads them, and read from then on.

    decoded/<set>/index         a row for each picture: where its pixels begin, its sides, their checksum
    decoded/<set>/<id>.pixels   the pictures one behind the other: uint8 of shape (height, width, 3), RGB
    locks/<set>.lock            held by the one training that adds pictures; the others of the host only read

A set's name is that of its content and of the decoder, so what is found is what decoding would give, to the bit.
Pixels are only ever added behind those that the index names, and the index is replaced whole behind them (fsync,
rename): a crash leaves a tail that nobody reads. The index carries its digest, and a picture that this training has
not written itself is compared with its checksum when it is first read: what does not fit is decoded and added anew.
Files are read and not mapped, since a mapped file that is cut short, or lies on a bad disk, kills who looks at it.

Nothing of this is needed: whatever fails, pictures are decoded as if there were no cache, after one warning.
"""

import contextlib
import functools
import hashlib
import math
import mmap
import multiprocessing
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
import PIL
import psutil
import simplejpeg
from PIL import features

from orchestrator import config, failpoints, log
from worker import durable, protocol
from worker.data.pixels import Pixels

#: Below the data cache.
FOLDER = "decoded"

_INDEX = "index"
#: Raised when the files mean something else than before.
_VERSION = 1

#: Without a height the picture is not there. `unseen`: it was not compared with its checksum yet; `lost`: it failed.
_ROW = np.dtype(
    [("offset", "<u8"), *((name, "<u4") for name in ("height", "width", "sum")), ("unseen", "?"), ("lost", "?")]
)
#: Bytes of the file that the index names, with what was added to it, at most; whether this training is the one that
#: may add, whether it does, and whether it has been said that it does not.
_HEAD = np.dtype(
    [
        ("file", "S32"),
        *((name, "<u8") for name in ("kept", "tail", "limit")),
        *((name, "?") for name in ("ours", "adding", "said")),
    ]
)
_DIGEST = hashlib.sha256().digest_size
#: Bytes that are summed up before the checksum sees them.
_BLOCK = 4096
#: Pixels of a set through the bytes of its files, as long as nobody knows better: photographs have ten times as many.
_EXPANSION = 10

_log = log.get("data")


class _Damaged(Exception):
    """A file is not what was written."""


class Stored:
    """A picture in the cache. It has a shape, and `[rows, columns]` reads that part of it from the disk."""

    def __init__(
        self, source: "Decoded", index: int, shape: tuple[int, int, int], decode: Callable[[], Pixels]
    ) -> None:
        self._source = source
        self._index = index
        self._decode = decode
        self.shape = shape

    def __getitem__(self, part: tuple[slice, slice]) -> Pixels:
        """Return the pixels of rows and columns: an array of its own, uint8 of shape (height, width, 3)."""
        rows, columns = part
        start, stop, _ = rows.indices(self.shape[0])
        found = self._source.rows(self._index, start, stop)
        # Copied: the next picture is read into the same buffer.
        return self._decode()[part] if found is None else found[:, columns].copy()


#: What is cropped, by rows and columns.
Picture = Pixels | Stored


class Decoded:
    """The pictures of a set by their number: for one training, its threads, and the processes that it forks.

    What they have in common is in memory that a fork shares. Where pictures are, and whether, changes in the training
    process alone but for those that are added; each is asked for once an epoch.
    """

    def __init__(self, name: str, pictures: int, *, folder: Path, room: Callable[[], int]) -> None:
        memory = mmap.mmap(-1, _HEAD.itemsize + pictures * _ROW.itemsize)
        self._head: npt.NDArray[Any] = np.frombuffer(memory, _HEAD, 1)
        self._rows: npt.NDArray[Any] = np.frombuffer(memory, _ROW, offset=_HEAD.itemsize)
        self._turn = multiprocessing.get_context("fork").Lock()
        self._folder = folder / FOLDER / name
        self._lock = filelock.FileLock(_lock_file(folder, name))
        self._room = room
        self._own = threading.local()  #: buffer, of each thread
        self._open: tuple[bytes, int] | None = None  #: name and descriptor of the file, in this process
        self._pool = ThreadPoolExecutor(1, "decoded")
        self._keeping: Future[None] | None = None

    def picture(self, index: int, decode: Callable[[], Pixels]) -> Picture:
        """Return a picture: what is in the cache, else what `decode` gives, which is added."""
        _, height, width, *_ = self._rows[index].item()
        if height:
            return Stored(self, index, (height, width, 3), decode)
        pixels = decode()
        if self._head["adding"][0]:
            self._add(index, pixels)
        return pixels

    def rows(self, index: int, start: int, stop: int) -> Pixels | None:
        """Return rows of a picture, valid until this thread reads the next ones; None where they are lost."""
        offset, height, width, checksum, unseen, _ = self._rows[index].item()
        try:
            if not unseen:
                return self._read(offset + start * width * 3, (stop - start, width, 3))
            whole = self._read(offset, (height, width, 3))
            _check(whole, checksum)
        except (OSError, _Damaged):
            self._rows["height"][index], self._rows["lost"][index] = 0, True
            return None
        self._rows["unseen"][index] = False
        return whole[start:stop]

    def refresh(self) -> None:
        """Take over what other trainings have added, and from now on add to it, unless another one does.

        To be called between two epochs, when no picture is being read.
        """
        if self._head["ours"][0] or (self._rows["height"] > 0).all():
            return
        try:
            alone, fits = self._is_alone(), self._find()
            if alone and fits:
                self._begin()
            elif alone:
                self._lock.release()
        except OSError as error:
            self._give_up(error)

    def keep(self) -> None:
        """Let other trainings find what was added so far, once it is on the disk; does not wait for that."""
        head = self._head[0]
        if self._keeping is not None:
            if not self._keeping.done():
                return
            self._keeping.result()
        if head["ours"] and head["tail"] > head["kept"]:
            self._keeping = self._pool.submit(self._keep, int(head["tail"]), self._rows.copy())

    def close(self) -> None:
        """Keep what was added, wait until it is on the disk, and let another training add."""
        try:
            for _ in range(2):  # what is on its way, then what came after it
                if self._keeping is not None:
                    self._keeping.result()
                self.keep()
        finally:
            self._pool.shutdown()
            self._lock.release(force=True)

    def _is_alone(self) -> bool:
        """Whether no other training adds to the set; from now on this one has the right to."""
        failpoints.reach("pixels.lock")
        Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(filelock.Timeout):
            self._lock.acquire(blocking=False)
            return True
        return False

    def _find(self) -> bool:
        """Take over the rows of an index that can be used; return whether what this one reads may be added to."""
        known = self._head["file"][0]
        try:
            failpoints.reach("pixels.look")
            name, kept, rows = _unpacked((self._folder / _INDEX).read_bytes(), len(self._rows))
            if known not in {b"", name} or self._path(name).stat().st_size < kept:
                return not known  # made anew, or cut short; what is open stays good
            os.utime(self._folder)
        except (FileNotFoundError, _Damaged):
            return not known
        new = (self._rows["height"] == 0) & (rows["height"] > 0)
        new &= ~self._rows["lost"] | (self._rows["offset"] != rows["offset"])  # unless it was added anew
        self._rows[new] = rows[new]
        self._rows["unseen"][new], self._rows["lost"][new] = True, False
        self._head["file"], self._head["kept"], self._head["tail"] = name, kept, kept
        return True

    def _begin(self) -> None:
        """Get ready to add."""
        if not self._head["file"][0]:
            shutil.rmtree(self._folder, ignore_errors=True)
            failpoints.reach("pixels.mkdir")
            self._folder.mkdir(parents=True)
            self._head["file"] = token_hex(16).encode()
        os.ftruncate(self._descriptor(), int(self._head["kept"][0]))  # what a crash has left
        self._head["limit"] = self._room()
        self._head["ours"] = True
        self._head["adding"] = not self._head["said"][0]

    def _add(self, index: int, pixels: Pixels) -> None:
        with self._turn:
            offset = int(self._head["tail"][0])
            if offset + pixels.nbytes > self._head["limit"][0]:
                self._head["adding"] = False
                return
            self._head["tail"] = offset + pixels.nbytes
        try:
            left = memoryview(pixels.data).cast("B")
            while left:
                failpoints.reach("pixels.write")
                left = left[os.pwrite(self._descriptor(), left, offset + pixels.nbytes - len(left)) :]
        except OSError as error:
            self._give_up(error)
            return
        row = (offset, *pixels.shape[:2], _checksum(pixels), False, False)
        with self._turn:
            if self._head["said"][0]:  # given up meanwhile: what was written before that was cut off
                self._give_back()
            else:
                self._rows[index] = row

    def _keep(self, tail: int, rows: npt.NDArray[Any]) -> None:
        try:
            failpoints.reach("pixels.fsync")
            os.fsync(self._descriptor())
            durable.write(_packed(self._head["file"][0], tail, rows), path=self._folder / _INDEX, place="decoded")
        except OSError as error:
            self._give_up(error)
        else:
            self._head["kept"] = tail

    def _give_up(self, error: OSError) -> None:
        """Add nothing more, and give back what nobody else has seen: the checkpoints may need the room."""
        with self._turn:
            said = bool(self._head["said"][0])
            self._head["said"], self._head["adding"] = True, False
            self._rows["height"][self._rows["offset"] >= self._head["kept"][0]] = 0
            self._give_back()
        if not said:
            _log.warning("Decoded pictures are not kept.", why=str(error), folder=str(self._folder))

    def _give_back(self) -> None:
        """Cut off what no index names."""
        if self._head["ours"][0] and self._open is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._open[1], int(self._head["kept"][0]))

    def _read(self, offset: int, shape: tuple[int, int, int]) -> Pixels:
        size = math.prod(shape)
        buffer = getattr(self._own, "buffer", b"")
        if len(buffer) < size:
            buffer = self._own.buffer = bytearray(size)
        failpoints.reach("pixels.read")
        if os.preadv(self._descriptor(), [memoryview(buffer)[:size]], offset) < size:
            raise _Damaged
        return np.frombuffer(buffer, np.uint8, size).reshape(shape)

    def _descriptor(self) -> int:
        name = self._head["file"][0]
        if self._open is None or self._open[0] != name:
            failpoints.reach("pixels.open")
            new = 0 if self._head["kept"][0] else os.O_CREAT
            self._open = name, os.open(self._path(name), os.O_RDWR | new | os.O_CLOEXEC, 0o600)
        return self._open[1]

    def _path(self, name: bytes) -> Path:
        return self._folder / f"{name.decode()}.pixels"


def of(info: protocol.DatasetInfo, settings: config.Settings) -> Decoded | None:
    """Return the cache of a data set's pictures; None where the settings want none."""
    if not settings.decoded_max_bytes:
        return None
    name = f"{info.hash[:32]}-{_decoder()}"
    room = functools.partial(_room, settings, name, _EXPANSION * info.bytes)
    return Decoded(name, sum(info.counts.values()), folder=settings.data_dir, room=room)


def taken(data_dir: Path, content_hash: str) -> int:
    """Return the bytes of a data set's decoded pictures."""
    return sum(map(_size, (data_dir / FOLDER).glob(f"{content_hash[:32]}-*")))


def useless(data_dir: Path, hashes: Iterable[str]) -> Iterator[tuple[Path, int]]:
    """Yield folders that no training reads again, with their bytes: of no set of these hashes, or decoded otherwise."""
    known = {f"{content_hash[:32]}-{_decoder()}" for content_hash in hashes}
    for folder in sorted((data_dir / FOLDER).glob("*-*")):
        if folder.name not in known:
            yield folder, _size(folder)


def forget(data_dir: Path, content_hash: str) -> None:
    """Remove the decoded pictures of a data set."""
    for folder in (data_dir / FOLDER).glob(f"{content_hash[:32]}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _room(settings: config.Settings, name: str, expected: int) -> int:
    """Return how many bytes a set may have; removes those that were used longest ago where it would not fit beside.

    No set has more than half of the memory, behind which a disk would be read that is slower than decoding, nor of
    the disk that is free: others need it as well.
    """
    folder, largest = settings.data_dir / FOLDER, psutil.virtual_memory().total // 2
    own, taken = _size(folder / name), 0
    free = shutil.disk_usage(folder).free
    others = sorted(_others(folder, name), reverse=True)
    for _, size, other in others:
        if taken + size + min(expected, largest) <= settings.decoded_max_bytes or not remove(other, settings):
            taken += size
    return max(0, min(settings.decoded_max_bytes - taken, largest, own + free // 2))


def _others(folder: Path, name: str) -> Iterator[tuple[float, int, Path]]:
    """Yield when other sets were used, what they take and where they are."""
    for other in folder.iterdir():
        if other.name != name:
            with contextlib.suppress(OSError):
                yield other.stat().st_mtime, _size(other), other


def remove(folder: Path, settings: config.Settings) -> bool:
    """Remove a set, unless a training is adding to it; return whether it is gone."""
    with contextlib.suppress(filelock.Timeout):
        failpoints.reach("pixels.drop")
        with filelock.FileLock(_lock_file(settings.data_dir, folder.name)).acquire(blocking=False):
            shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _size(folder: Path) -> int:
    size = 0
    with contextlib.suppress(FileNotFoundError):  # a training begins its folder anew, or another one removes it
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
    return size


def _lock_file(data_dir: Path, name: str) -> Path:
    return data_dir / "locks" / f"{name}.lock"


@functools.cache
def _decoder() -> str:
    """Return a digest of all that pixels depend on besides the files."""
    libraries = map(features.version, ("jpg", "zlib", "libtiff", "webp"))
    parts = (_VERSION, PIL.__version__, simplejpeg.__version__, *libraries)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def _checksum(pixels: Pixels) -> int:
    """Return the crc32 of the sums of a picture's blocks, and of its last bytes.

    A tenth of the time of its own crc32: every changed word changes the sum of its block, and blocks have an order.
    """
    flat = pixels.reshape(-1)
    whole = flat.size - flat.size % _BLOCK
    sums = flat[:whole].view(np.uint64).reshape(-1, _BLOCK // 8).sum(axis=1, dtype=np.uint64)
    return zlib.crc32(flat[whole:].data, zlib.crc32(sums))


def _check(pixels: Pixels, checksum: int) -> None:
    if _checksum(pixels) != checksum:
        raise _Damaged


def _packed(name: bytes, kept: int, rows: npt.NDArray[Any]) -> bytes:
    content = name + kept.to_bytes(8, "little") + rows.tobytes()
    return hashlib.sha256(content).digest() + content


def _unpacked(index: bytes, pictures: int) -> tuple[bytes, int, npt.NDArray[Any]]:
    """Return file, bytes and rows of an index; raises `_Damaged`."""
    digest, content = index[:_DIGEST], index[_DIGEST:]
    rows = content[40:]
    if hashlib.sha256(content).digest() != digest or len(rows) != pictures * _ROW.itemsize:
        raise _Damaged
    return content[:32], int.from_bytes(content[32:40], "little"), np.frombuffer(rows, _ROW)

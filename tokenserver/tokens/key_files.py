"""The ring's folder: a file for each key and MAC secret, the manifest, and the lock under which they change."""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from typing import Final

from joserfc.util import urlsafe_b64encode

from tokenserver.errors import ConfigurationError
from tokenserver.tokens.key_manifest import SECRET, Entries, Entry, dump, file_name, parse
from tokenserver.tokens.signing_key import SigningKey, generate_pem, load_pem

MANIFEST: Final = "ring.json"
LOCK: Final = ".lock"
SECRET_BYTES: Final = 32
BEGIN: Final = "`tokenserver init` creates a new ring; one that was there is restored from a backup"
RESTORE: Final = "restore it from a backup"
REPLACE: Final = RESTORE + ", or replace all keys with `tokenserver keys rotate --emergency`"
PERMIT: Final = "the server's user must be able to read and write the folder"

Fault = tuple[str, str]  # what is wrong, what to do
Material = SigningKey | bytes
Stamp = tuple[int, int, int]


class RingUnusable(ConfigurationError):
    """The folder holds no ring that can be trusted. The text names files, never what is in them."""

    code = "key_ring_unusable"
    public = "The key ring can't be used as it is; the server's log says why."

    def __init__(self, what: str, remedy: str) -> None:
        self.fault: Fault = (what, remedy)
        super().__init__(private=f"{what}: {remedy}")


class Draft:
    """The ring as it is to be when the change ends."""

    def __init__(self, folder: "KeyFolder", entries: Entries) -> None:
        self._folder = folder
        self.entries = entries
        self.created: list[str] = []

    def create(self, alg: str) -> str:
        """The kid of a new key or secret, written to its file; the caller gives it an entry."""
        content = token_bytes(SECRET_BYTES) if alg == SECRET else generate_pem(alg)
        kid = _kid(_material(alg, content))
        self.created.append(file_name(alg, kid))
        self._folder.add(file_name(alg, kid), content)
        return kid

    def check(self, entry: Entry) -> None:
        """RingUnusable unless its file can be used."""
        self._folder.load(entry)


class KeyFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> Stamp:
        """Another one after each change of the ring. One `stat`."""
        with self._naming(MANIFEST) as path:
            return _stamp(path.stat())

    def read(self) -> tuple[Entries, Stamp]:
        with self._naming(MANIFEST) as path, path.open("rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            text = file.read()
        try:
            return parse(text), stamp
        except ValueError as error:
            raise RingUnusable(f"{path} {error}", RESTORE) from None

    def load(self, entry: Entry) -> Material:
        remedy = RESTORE if entry.alg == SECRET else REPLACE
        with self._naming(entry.file, missing=remedy) as path:
            content = path.read_bytes()
        try:
            material = _material(entry.alg, content)
        except ValueError as error:
            raise RingUnusable(f"{path} {error}", remedy) from None
        if _kid(material) != entry.kid:
            raise RingUnusable(f"{path} holds another key than its name says", remedy)
        return material

    def add(self, name: str, content: bytes) -> None:
        with self._naming(name) as path:
            _write(path, os.O_EXCL, content)

    @contextmanager
    def change(self, *, create: bool = False) -> Iterator[Draft]:
        """One at a time for all threads, processes and nodes, on what the manifest says then; all or nothing."""
        with self._locked(create=create):
            if create:
                with self._naming(MANIFEST) as path:
                    self._begin(path)
            before, _ = self.read()
            draft = Draft(self, before)
            try:
                yield draft
                # New files are on the disk before the manifest names them; old ones go after it forgot them.
                if draft.entries != before:
                    self._write_manifest(draft.entries)
            except BaseException:
                self._discard(draft.created)
                raise
            if draft.entries != before:
                self._discard(entry.file for entry in before)

    def _begin(self, manifest: Path) -> None:
        if manifest.exists():
            return
        if any(is_key_file(path) for path in self.path.iterdir()):
            remedy = RESTORE + ", or move the keys away to begin a new ring"
            raise RingUnusable(f"{manifest} is missing, but keys are there", remedy)
        with suppress(PermissionError):  # somebody else's folder; `doctor` says what is wrong with it
            self.path.chmod(0o700)
        # Before the first key, so that a start that was cut off can be told from a lost manifest.
        self._write_manifest(())

    def _write_manifest(self, entries: Entries) -> None:
        with self._naming(MANIFEST) as path:
            draft = path.with_name(f".{MANIFEST}.tmp")
            _write(draft, os.O_TRUNC, dump(entries))
            _sync(self.path)
            draft.replace(path)
            _sync(self.path)

    def _discard(self, names: Iterable[str]) -> None:
        # What the manifest names stays, whatever went wrong; what can't be deleted is reported by `faults`.
        with suppress(OSError, RingUnusable):
            named = {entry.file for entry in self.read()[0]}
            for name in set(names) - named:
                (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def _locked(self, *, create: bool) -> Iterator[None]:
        with self._naming(LOCK) as path:
            if create:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            # A child forked meanwhile holds the same lock: closing alone would not release it.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    @contextmanager
    def _naming(self, name: str, missing: str = BEGIN) -> Iterator[Path]:
        path = self.path / name
        try:
            yield path
        except OSError as error:
            remedy = missing if error.errno == errno.ENOENT else PERMIT
            raise RingUnusable(f"{path}: {error.strerror}", remedy) from None


def _write(path: Path, flag: int, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flag, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _material(alg: str, content: bytes) -> Material:
    return content if alg == SECRET else load_pem(alg, content)


def _kid(material: Material) -> str:
    """Of a key its RFC 7638 thumbprint, of a secret its digest."""
    return urlsafe_b64encode(sha256(material).digest()).decode() if isinstance(material, bytes) else material.kid


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_ino, status.st_size


def is_key_file(path: Path) -> bool:
    return path.suffix in {".pem", ".bin"}

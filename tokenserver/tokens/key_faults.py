"""What `doctor` finds in the ring's folder: each fault with what to do about it."""

import stat
from collections.abc import Iterator
from pathlib import Path

from tokenserver.config import SIGNING_ALGS
from tokenserver.tokens.key_files import BEGIN, MANIFEST, Fault, KeyFolder, RingUnusable, is_key_file
from tokenserver.tokens.key_lifecycle import Lifecycle, needs
from tokenserver.tokens.key_manifest import SECRET, Entries, algorithms, find_entry, rfc3339


def find_faults(folder: KeyFolder, lifecycle: Lifecycle, rotation_interval: int) -> list[Fault]:
    """`rotation_interval`: seconds; 0 when keys are rotated by command alone."""
    try:
        found = list(_wrong_modes(folder.path))
        entries, _ = folder.read()
        found += _wrong_files(folder, entries)
    except OSError as error:
        return [(f"{folder.path}: {error.strerror}", BEGIN)]
    except RingUnusable as error:
        return [*found, error.fault]
    return [*found, *_wrong_states(entries, lifecycle, rotation_interval)]


def _wrong_modes(folder: Path) -> Iterator[Fault]:
    private = [path for path in sorted(folder.iterdir()) if path.name == MANIFEST or is_key_file(path)]
    for path, forbidden, wanted in ((folder, 0o077, "700"), *((path, 0o177, "600") for path in private)):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & forbidden:
            yield f"{path} has mode {mode:04o}", f"chmod {wanted} {path}"


def _wrong_files(folder: KeyFolder, entries: Entries) -> Iterator[Fault]:
    for entry in entries:
        try:
            folder.load(entry)
        except RingUnusable as error:
            yield error.fault
    named = {entry.file for entry in entries}
    for path in sorted(folder.path.iterdir()):
        if is_key_file(path) and path.name not in named:
            yield f"{path} is not in the manifest", "nothing uses it: move it to a safe place, or delete it"


def _wrong_states(entries: Entries, lifecycle: Lifecycle, rotation_interval: int) -> Iterator[Fault]:
    wanted = dict.fromkeys(need for alg in algorithms(entries) or SIGNING_ALGS[:1] for need in needs(alg))
    for alg, state in wanted:
        entry = find_entry(entries, alg, state)
        if entry is None:
            yield f"there is no {state} key for {alg}", "`tokenserver init` creates it"
        elif alg != SECRET and rotation_interval and lifecycle.is_older(entry, rotation_interval):
            since = rfc3339(entry.activated_at or 0)
            what = f"the key for {alg} is active since {since}, for longer than the rotation interval"
            yield what, "run `tokenserver keys rotate`; a running server does so by itself"

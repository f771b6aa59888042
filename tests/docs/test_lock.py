"""What setup.cfg asks for is in requirements/, with hashes, for every platform; nothing is installed past it."""

import re
import tomllib
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.docs.fences import ROOT

EXTRAS = ("server", "multi-buffer", "otel", "docs", "test", "lint", "tools")
LOCKS = ("build", *EXTRAS)
ENTRY = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ]+)(?: ; (?P<marker>.+?))?(?P<hashes>(?: --hash=\S+)+)")
HERE = default_environment()
# The Pythons and platforms that somebody runs this on.
MACHINES = [
    HERE | {"python_version": python, "python_full_version": f"{python}.5", **machine}
    for python in ("3.11", "3.12", "3.13", "3.14")
    for machine in (
        {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
        {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "aarch64"},
        {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    )
]


@dataclass(frozen=True)
class Locked:
    version: str
    marker: Marker | None

    def holds(self, machine):
        return self.marker is None or self.marker.evaluate(machine)


def lines(lock):
    """The logical lines of a lock file."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    joined = text.replace(" \\\n    ", " ")
    return [line for line in joined.splitlines() if not line.startswith("#")]


@cache
def locked(lock):
    """Its packages by name; several of one name are for different machines."""
    found = {}
    for line in lines(lock):
        match = ENTRY.fullmatch(line)
        marker = Marker(match["marker"]) if match["marker"] else None
        found.setdefault(match["name"], []).append(Locked(match["version"], marker))
    return found


@cache
def asked():
    """What setup.cfg asks for, by extra, without what it says of its own extras."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    base = [Requirement(line) for line in setup["options"]["install_requires"].strip().splitlines()]
    found = {}
    for extra, text in setup["options.extras_require"].items():
        wanted = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
        inner = [found[name] for each in wanted if each.name == "tokenserver" for name in each.extras]
        found[extra] = sum(inner, base) + [each for each in wanted if each.name != "tokenserver"]
    return found


def missing(requirement, lock, machine):
    """Why this machine wouldn't get what is asked for."""
    if requirement.marker and not requirement.marker.evaluate(machine | {"extra": ""}):
        return None
    found = [each for each in locked(lock).get(canonicalize_name(requirement.name), []) if each.holds(machine)]
    if len(found) != 1:
        return f"{requirement} is locked {len(found)} times"
    if not requirement.specifier.contains(found[0].version, prereleases=True):
        return f"{requirement} is locked as {found[0].version}"
    return None


def test_every_extra_has_a_lock():
    assert set(asked()) == set(EXTRAS)
    assert {file.stem for file in (ROOT / "requirements").glob("*.txt")} == set(LOCKS)


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_setup_cfg_asks_for_is_locked(extra):
    wrong = {missing(each, extra, machine) for each in asked()[extra] for machine in MACHINES} - {None}
    assert not wrong, "run `make lock`"


@pytest.mark.parametrize("extra", ["server", "multi-buffer", "docs", "test", "lint"])
def test_what_that_needs_in_turn_is_locked_too(extra):
    """As far as the packages here tell: those that are installed in the version that is locked."""
    todo, seen, wrong = list(asked()[extra]), set(), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        wrong.add(missing(requirement, extra, HERE))
        if _installed(name) not in {each.version for each in locked(extra).get(name, [])}:
            continue
        for within in {"", *requirement.extras} - {each for known, each in seen if known == name}:
            seen.add((name, within))
            needed = [Requirement(text) for text in metadata.requires(name) or ()]
            todo += [each for each in needed if not each.marker or each.marker.evaluate(HERE | {"extra": within})]
    assert wrong == {None}, "run `make lock`"
    assert seen, "nothing here is of a locked version"


def _installed(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def test_what_builds_the_package_is_locked():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    assert {missing(Requirement(text), "build", machine) for text in build["requires"] for machine in MACHINES} == {
        None
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_versions_and_hashes_and_names_no_place(lock):
    """Whoever installs decides where from: a mirror serves the same bytes, or pip refuses them."""
    for line in lines(lock):
        match = ENTRY.fullmatch(line)
        assert match, line
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in match["hashes"].split())
        Version(match["version"])


def test_a_package_has_one_version_in_all_that_is_installed_together():
    for smaller in ("build", "server", "multi-buffer", "docs", "test"):
        for name, entries in locked(smaller).items():
            assert {each.version for each in entries} <= {each.version for each in locked("lint")[name]}, name


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_nothing_is_installed_but_by_hash(file):
    """Or it is of our own, without what it needs."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    locked_by = re.search(r"^LOCKED := (.+)$", text, re.MULTILINE)
    if locked_by:
        text = text.replace("$(LOCKED)", locked_by[1])
    commands = [
        command
        for command in re.split(r"&&|\|\||\n", text)
        if re.search(r"\bpip\b.* (install|wheel) ", command) and not command.startswith(("#", "LOCKED"))
    ]
    assert len(commands) >= 4
    for command in commands:
        assert "--no-deps" in command, command
        ours = re.search(r"--no-build-isolation\b.* \.\s*(?:2>\S+\s*)?$|/tokenserver-\*\.whl\s*$", command)
        assert ours or "--require-hashes" in command, command

"""Do the tests of published flaws bite? Two ways to see.

`python -m tests.advisories` makes some of the flaws again, one at a time, in a copy of the sources, and runs the
test that has to fail then.

`python -m tests.advisories authlib==1.7.2` runs the tests that docs/threat-model.md names for advisories on another
version of a library, which is installed in a folder of its own and found first.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.advisories.flaws import FLAWS

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`([a-z0-9_/]+\.py)::(\w+)`")


def node_ids() -> list[str]:
    """As pytest calls them: a test may be in a class."""
    document = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    named = set(NAMED.findall(document.partition("\n## Advisories\n")[2]))
    found = []
    for path in sorted({path for path, _ in named}):
        for node in ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8")).body:
            within = node.body if isinstance(node, ast.ClassDef) else [node]
            prefix = f"tests/{path}::" + (f"{node.name}::" if isinstance(node, ast.ClassDef) else "")
            functions = [each for each in within if isinstance(each, ast.FunctionDef)]
            found += [prefix + each.name for each in functions if (path, each.name) in named]
    return found


def pytest(*arguments: str, folder: Path, path: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """`folder`: where the tests are; `path`: where what they test is looked for first."""
    # What an old version warns of would fail every test.
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-W", "default", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, check=False, text=True, **options)


def on_other_versions(*requirements: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            folder,
            *requirements,
        ]
        subprocess.run(install, check=True)
        return pytest(*node_ids(), folder=ROOT, path=f"{folder}:{ROOT}").returncode


def with_flaws() -> int:
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tokenserver"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "var", "build", "node_modules", "*.pem"))
        for flaw in FLAWS:
            file = copy / "tokenserver" / flaw.file
            sound = file.read_text(encoding="utf-8")
            if sound.count(flaw.here) != 1:
                raise SystemExit(f"tokenserver/{flaw.file} doesn't say {flaw.here!r}, or says it twice")
            file.write_text(sound.replace(flaw.here, flaw.flawed), encoding="utf-8")
            done = pytest(f"tests/{flaw.test}", folder=copy, path=str(copy), capture_output=True)
            file.write_text(sound, encoding="utf-8")
            is_noticed = done.returncode == 1
            unnoticed += not is_noticed
            print(f"{'noticed    ' if is_noticed else 'NOT NOTICED'} {flaw.advisory}", flush=True)
            if not is_noticed:
                print(done.stdout[-2000:])
    return min(unnoticed, 1)


if __name__ == "__main__":
    sys.exit(on_other_versions(*sys.argv[1:]) if sys.argv[1:] else with_flaws())

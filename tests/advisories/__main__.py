"""`python -m tests.advisories authlib==1.7.2`: the tests that docs/threat-model.md names for advisories, on another
version of a library, which is installed in a folder of its own and found first. What fails there bites.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

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


def main() -> int:
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
            *sys.argv[1:],
        ]
        subprocess.run(install, check=True)
        environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
        for each in sys.argv[1:]:
            name = each.partition("==")[0]
            code = f"import importlib.metadata as m; print({name!r}, m.version({name!r}))"
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        # What an old version warns of would fail every test.
        options = ["-q", "--tb=line", "-W", "default", "-p", "no:cacheprovider"]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, *node_ids()], cwd=ROOT, env=environment, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())

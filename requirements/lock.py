"""Make the lock files: one for each extra of setup.cfg, one for what builds the package, and one for the servers of
others that the benchmarks compare with.

`make lock` keeps the versions that still fit; `make lock ARGS=--upgrade` takes the newest of all, and
`make lock ARGS="--upgrade-package flask"` of one. Where packages come from is nobody's business but that of the
machine (`UV_DEFAULT_INDEX`), and isn't written down.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
UV = Path(sys.executable).with_name("uv")
OLDEST = "3.11"


def compile_lock(name: str, *arguments: str, of: str = "setup.cfg", standard_input: str | None = None) -> None:
    """Write `requirements/<name>.txt`, for every platform and every Python from the oldest on."""
    subprocess.run(
        [
            *(UV, "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST, "--generate-hashes"),
            *("--no-emit-index-url", "--no-annotate", "--custom-compile-command", "make lock"),
            *("--output-file", FOLDER / f"{name}.txt", *arguments, of),
        ],
        cwd=ROOT,
        input=standard_input,
        text=True,
        check=True,
    )


def main() -> None:
    asked = sys.argv[1:]
    compile_lock("lint", "--extra", "lint", *asked)
    # What `lint` holds whole, the others hold in part: a package has one version here.
    within = ("--constraints", str(FOLDER / "lint.txt"))
    for name in ("test", "server", "multi-buffer", "otel", "docs"):
        compile_lock(name, "--extra", name, *within)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    compile_lock("build", *within, of="-", standard_input="\n".join(build))
    compile_lock("tools", "--extra", "tools", *asked)
    peers = "benchmarks/peers/requirements"
    compile_lock(f"../{peers}", *asked, of=f"{peers}.in")


if __name__ == "__main__":
    main()

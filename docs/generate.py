#!/usr/bin/env python3
"""Writes all that is generated of docs/, and .env.example: `make docs-generated`. With `--check` it only tells what
is out of date, and ends with 1 then.
"""

import sys
from pathlib import Path
from typing import Final

import generate_configuration
import generate_errors
import generate_roles

ROOT: Final = Path(__file__).resolve().parents[1]
GENERATED: Final = {
    ".env.example": generate_configuration.example,
    "docs/configuration.md": generate_configuration.manual,
    "docs/errors.md": generate_errors.document,
    "docs/roles.md": generate_roles.document,
}


def main(*, check: bool) -> int:
    stale = []
    for name, generated in GENERATED.items():
        file, text = ROOT / name, generated()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                file.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stdout.write(
            f"{name} {'is out of date: run `make docs-generated` (docs/generate.py)' if check else 'is written'}\n"
        )
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))

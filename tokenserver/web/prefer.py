"""How long an answer may take, as who asks prefers it: `Prefer: wait=5` (RFC 7240 section 4.3)."""

import re
from typing import Final

from werkzeug.http import parse_list_header

# Of more characters nothing is read.
MAX_LENGTH: Final = 1000
DELTA_SECONDS: Final = re.compile(r"""[0-9]+|"[0-9]+\"""")
MOST: Final = 10**9


def wait_of(field: str | None) -> int:
    """Seconds; 0 where nothing that can be read is said of it. `field`: all fields, joined by commas."""
    if field is None or len(field) > MAX_LENGTH:
        return 0
    for preference in parse_list_header(field):
        name, _, value = preference.partition(";")[0].partition("=")
        # Section 2: names in any case, and of one that is there twice the first counts.
        if name.strip().lower() == "wait":
            return _seconds(value.strip())
    return 0


def _seconds(value: str) -> int:
    if not DELTA_SECONDS.fullmatch(value):
        return 0
    return min(int(value.strip('"')), MOST)

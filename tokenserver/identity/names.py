"""Names that people are known by: what is allowed, and when two are the same.

Comparison is by NFKC and case folding (RFC 8265 section 3.3 in spirit): a full-width or superscript spelling is the
plain one. Of what remains a user name may only hold ASCII, so no letter of another script can pass for one of it.
"""

import re
import unicodedata
from typing import Final

USERNAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,31}")
# Deliberately loose (RFC 5321 allows much): one @, something on both sides, a host without empty labels.
LOCAL: Final = r"[^@\s\"(),:;<>\[\\\]]{1,64}"
LABEL: Final = r"[^@\s.\"(),:;<>\[\\\]]+"
EMAIL: Final = re.compile(rf"{LOCAL}@{LABEL}(\.{LABEL})*")


def folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).strip().casefold())


def displayed(email: str) -> str:
    """As typed, in the characters that mail can be sent to."""
    return unicodedata.normalize("NFKC", email).strip()


def is_username(key: str) -> bool:
    """`key`: a folded name."""
    return USERNAME.fullmatch(key) is not None


def is_email(key: str) -> bool:
    """`key`: a folded address."""
    # Invisible characters (category C) would make two addresses that look alike.
    visible = all(unicodedata.category(c)[0] != "C" for c in key)
    return len(key) <= 254 and visible and EMAIL.fullmatch(key) is not None

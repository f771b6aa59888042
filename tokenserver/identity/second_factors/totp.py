"""One-time passwords of an authenticator app: HOTP (RFC 4226) over time steps (RFC 6238)."""

import hmac
import secrets
from base64 import b32encode
from typing import Final
from urllib.parse import quote

# What every app can do; many ignore any other choice without a word.
ALGORITHM: Final = "sha1"
DIGITS: Final = 6
STEP_SECONDS: Final = 30
# RFC 4226 section 4, R6: at least 128 bits, 160 RECOMMENDED.
SECRET_BYTES: Final = 20
# RFC 6238 section 5.2: at most one step of delay; one more for a phone whose clock is ahead.
WINDOW: Final = 1


def generate() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def hotp(secret: bytes, counter: int, *, digits: int = DIGITS, algorithm: str = ALGORITHM) -> str:
    """RFC 4226 section 5.3."""
    mac = hmac.digest(secret, counter.to_bytes(8, "big"), algorithm)
    offset = mac[-1] & 0x0F
    number = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**digits:0{digits}}"


def step_at(seconds: float) -> int:
    """The time step of a moment, in s since 1970 (RFC 6238 section 4.2)."""
    return int(seconds) // STEP_SECONDS


def matching_step(secret: bytes, code: str, seconds: float) -> int | None:
    """The time step that the code is of, if that is the one of this moment or next to it. In constant time."""
    now, found = step_at(seconds), None
    for step in range(now - WINDOW, now + WINDOW + 1):
        if hmac.compare_digest(hotp(secret, step).encode(), code.encode("utf-8", "surrogatepass")):
            found = step
    return found


def spelled(secret: bytes) -> str:
    """In letters that people can type: base32 without padding."""
    return b32encode(secret).decode().rstrip("=")


def uri(secret: bytes, *, account: str, issuer: str) -> str:
    """What a QR code holds: Google's key URI format, which all apps read."""
    label = f"{quote(issuer, safe='')}:{quote(account, safe='')}"
    return (
        f"otpauth://totp/{label}?secret={spelled(secret)}&issuer={quote(issuer, safe='')}"
        f"&algorithm={ALGORITHM.upper()}&digits={DIGITS}&period={STEP_SECONDS}"
    )

"""R: the CPU time of one RSA-2048 signature (RS256) by `cryptography`: the floor under a token, here and now."""

import time
from functools import cache
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SIGNED: Final = bytes(700)  # about as long as the header and claims of an access token


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def raw_signature_ms(seconds: float = 0.1) -> float:
    """CPU ms of one signature."""
    key = _key()
    scheme, digest = padding.PKCS1v15(), hashes.SHA256()
    key.sign(SIGNED, scheme, digest)
    count, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        key.sign(SIGNED, scheme, digest)
        count += 1
    return spent * 1000 / count

"""One private key of the ring and the one JWS algorithm (RFC 7518 section 3, RFC 8037) that it serves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tokenserver.signals import traces
from tokenserver.storage.aside import loop
from tokenserver.tokens.lanes import PrivateKey, Sign, lane_key
from tokenserver.tokens.multi_buffer import shared
from tokenserver.verify.jwks import PublicKey

RSA_BITS: Final = 2048

_SHA256: Final = hashes.SHA256()
_PKCS1: Final = padding.PKCS1v15()
# RFC 7518 section 3.5: the salt is as long as the hash.
_PSS: Final = padding.PSS(padding.MGF1(_SHA256), _SHA256.digest_size)
_ECDSA: Final = ec.ECDSA(_SHA256)


@dataclass(frozen=True, slots=True, eq=False)
class Signer:
    """What makes the JWS signatures of one key."""

    kid: str
    alg: str
    _sign: Sign = field(repr=False)

    def sign(self, signing_input: bytes) -> bytes:
        with traces.span("sign"):
            return self._sign(signing_input)


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """`jwk`: the public members, `use`, `alg` and `kid`."""

    signer: Signer
    public: PublicKey = field(repr=False)
    jwk: dict[str, str] = field(repr=False)

    @property
    def kid(self) -> str:
        return self.signer.kid


def generate_pem(alg: str) -> bytes:
    private: PrivateKey
    if alg in {"RS256", "PS256"}:
        private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    elif alg == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_pem(alg: str, pem: bytes) -> SigningKey:
    """ValueError, without any of the key in it, for what can't sign `alg` safely. Takes up to 60 ms: load once."""
    try:
        # Checks RSA keys for consistency: with one wrong number in the file a signature would give the key away.
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is not an unencrypted PEM private key") from None
    jwk: RSAKey | ECKey | OKPKey
    if alg in {"RS256", "PS256"} and isinstance(private, rsa.RSAPrivateKey):
        # RFC 7518 sections 3.3 and 3.5: a key of size 2048 bits or larger MUST be used.
        if private.key_size < RSA_BITS:
            raise ValueError(f"is an RSA key of {private.key_size} bits, less than {RSA_BITS}")
        jwk = RSAKey.import_key(private.public_key())
    elif alg == "ES256" and isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name == "secp256r1":
        jwk = ECKey.import_key(private.public_key())
    elif alg == "EdDSA" and isinstance(private, ed25519.Ed25519PrivateKey):
        jwk = OKPKey.import_key(private.public_key())
    else:
        raise ValueError(f"is not a key for {alg}")
    kid = jwk.thumbprint()  # RFC 7638
    members = {name: str(value) for name, value in jwk.as_dict(private=False).items()}
    # RFC 7517 sections 4.2 to 4.5: a key serves exactly one use and one algorithm.
    members |= {"kid": kid, "use": "sig", "alg": alg}
    return SigningKey(Signer(kid, alg, _sign_with(alg, private)), PublicKey(kid=kid, alg=alg, key=jwk), members)


class _OneAfterTheOther:
    """Signatures of several requests in a row: what they need of the processor's caches is there then."""

    def exchange(self, items: Sequence[tuple[Sign, bytes]]) -> list[bytes]:
        return [sign(signing_input) for sign, signing_input in items]


_one_after_the_other: Final = _OneAfterTheOther()


def _in_a_row(alone: Sign) -> Sign:
    """`alone`, after what others in the same loop do before they sign."""

    def sign(signing_input: bytes) -> bytes:
        here = loop()
        if here is None:
            return alone(signing_input)
        signature: bytes = here.ask(_one_after_the_other, (alone, signing_input))
        return signature

    return sign


def _sign_with(alg: str, private: PrivateKey) -> Sign:
    in_a_row = _in_a_row(_alone(alg, private))
    key = lane_key(alg, private, in_a_row)
    return in_a_row if key is None else shared(key)


def _alone(alg: str, private: PrivateKey) -> Sign:
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign
    if isinstance(private, ec.EllipticCurvePrivateKey):

        def sign_es256(signing_input: bytes) -> bytes:
            # RFC 7518 section 3.4: R and S as 32 octets each, not DER.
            r, s = decode_dss_signature(private.sign(signing_input, _ECDSA))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

        return sign_es256
    scheme = _PKCS1 if alg == "RS256" else _PSS

    def sign_rsa(signing_input: bytes) -> bytes:
        return private.sign(signing_input, scheme, _SHA256)

    return sign_rsa

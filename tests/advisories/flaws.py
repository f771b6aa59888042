"""Published flaws, made again in a copy of the sources, with the test that has to notice each of them.

Not those that two defences stand against, of which taking one away is no flaw yet: revoked families (a cutoff, and
a mark in Redis), disabled users (their status, a cutoff, and the end of their sessions).
"""

from typing import NamedTuple


class Flaw(NamedTuple):
    """`here` becomes `flawed` in a file below `tokenserver/`; `test`, below `tests/`, fails then."""

    advisory: str
    file: str
    here: str
    flawed: str
    test: str


FLAWS = [
    Flaw(
        "CVE-2024-37568, CVE-2026-48523: the algorithm isn't the key's",
        "verify/access_token.py",
        "if key.alg != alg:",
        "if False:",
        "verify/test_access_token.py::TestAlgorithm::test_a_key_serves_its_own_algorithm_alone",
    ),
    Flaw(
        "CVE-2026-27962, CVE-2026-102946: a signature isn't looked at",
        "verify/access_token.py",
        "if not key.verify(jws.signature, jws.signing_input):",
        "if False:",
        "verify/test_access_token.py::TestSignature::test_no_segment_may_be_altered_rfc7515_5_2",
    ),
    Flaw(
        "CVE-2025-59420, CVE-2026-32597, GHSA-w7vc-732c-9m39: crit and b64 are ignored",
        "verify/compact.py",
        "if not REFUSED.isdisjoint(header):",
        "if False:",
        "verify/test_access_token.py::TestHeader::test_what_is_not_understood_or_never_done_rfc7515_4_1_11",
    ),
    Flaw(
        "CVE-2024-53861: a part of iss passes",
        "verify/claims.py",
        'if raw.get("iss") != issuer:',
        'if raw.get("iss") not in issuer:',
        "verify/test_access_token.py::TestClaims::test_iss_is_exactly_the_issuer_rfc9068_4",
    ),
    Flaw(
        "CVE-2026-75509: sub is an array",
        "verify/claims.py",
        "if not isinstance(value, str) or not value:",
        "if not value:",
        "verify/test_access_token.py::TestClaims::test_required_texts_rfc9068_2_2",
    ),
    Flaw(
        "joserfc 1.8.0: exp is a boolean",
        "verify/claims.py",
        "if (type(value) is not int and type(value) is not float) or not 0 <= value <= MAX_DATE:",
        "if not isinstance(value, int | float) or value < 0:",
        "verify/test_access_token.py::TestClaims::test_dates_are_numbers_rfc7519_2",
    ),
    Flaw(
        "CVE-2025-61920: tokens of any length",
        "verify/compact.py",
        "if len(token) > MAX_TOKEN:",
        "if False:",
        "verify/test_access_token.py::TestCost::test_16_kib_pass_and_one_byte_more_does_not",
    ),
    Flaw(
        "CVE-2023-6291, CVE-2024-8883: redirect URIs match by their beginning",
        "oauth/redirect_uri.py",
        "if given in registered:",
        "if any(given.startswith(each) for each in registered):",
        "oauth/test_authorization_endpoint.py::test_redirect_uri_is_the_registered_string",
    ),
    Flaw(
        "CVE-2020-15234: redirect URIs match in any case",
        "oauth/redirect_uri.py",
        "if given in registered:",
        "if given.lower() in {each.lower() for each in registered}:",
        "oauth/test_authorization_endpoint.py::test_redirect_uri_is_the_registered_string",
    ),
    Flaw(
        "CVE-2026-55672: codes aren't bound to their client",
        "oauth/grants/authorization_code.py",
        "if code is None or code.client_id != client.client_id:",
        "if code is None:",
        "oauth/test_authorization_code.py::test_whoever_lacks_what_it_is_bound_to_spends_nothing",
    ),
    Flaw(
        "CVE-2026-55672: refresh tokens aren't bound to their client",
        "oauth/grants/refresh_token.py",
        "if family is None or family.client_id != client.client_id:",
        "if family is None:",
        "rfc/test_rfc6749.py::test_refresh_token_is_bound_to_its_client",
    ),
    Flaw(
        "CVE-2024-22258, Authlib 1.7.0: PKCE is downgraded",
        "oauth/pkce.py",
        "if verifier is not None:",
        "if False:",
        "oauth/test_authorization_code.py::test_verifier_for_a_code_without_challenge_is_a_downgrade",
    ),
    Flaw(
        "CVE-2023-48228, CVE-2024-23647: the verifier isn't looked at",
        "oauth/pkce.py",
        "if not hmac.compare_digest(create_s256_code_challenge(verifier), challenge):",
        "if False:",
        "oauth/test_authorization_code.py::test_whoever_lacks_what_it_is_bound_to_spends_nothing",
    ),
    Flaw(
        "CVE-2026-116672: any registration token edits any client",
        "oauth/endpoints/registration.py",
        'if not self_registration.is_token_of(token or "", digest) or client is None or token is None:',
        "if client is None or token is None:",
        "rfc/test_rfc7591.py::test_a_registration_access_token_is_for_one_client",
    ),
    Flaw(
        "PYSEC-2026-4359: openid isn't granted and there is an ID token",
        "oauth/issuing.py",
        'if "openid" in granted:',
        "if True:",
        "oauth/test_id_token.py::test_there_is_one_only_where_openid_was_granted",
    ),
    Flaw(
        "CVE-2024-47077, CVE-2026-37979: introspection tells everybody",
        "oauth/endpoints/introspection.py",
        "if not _may_see(server, caller, claims.client_id, claims.aud):",
        "if False:",
        "rfc/test_rfc7662.py::test_token_of_another_client",
    ),
    Flaw(
        "django-oauth-toolkit #727: everybody revokes",
        "oauth/endpoints/revocation.py",
        "if client.client_id != owner:",
        "if False:",
        "rfc/test_rfc7009.py::test_token_of_another_client_is_refused_and_lives_on",
    ),
    Flaw(
        "CVE-2020-10770, PYSEC-2026-4360: private addresses are fetched from",
        "web/fetch.py",
        "if not is_private and not is_public(address):",
        "if False:",
        "web/test_fetch.py::test_nobody_inside_hears_of_it",
    ),
    Flaw(
        "django-oauth-toolkit #1617: the grace honours grandparents",
        "storage/scripts/rotate.lua",
        "if presented == current - 1",
        "if presented < current",
        "tokens/test_refresh_token.py::TestGrace::test_the_grandparent_is_reuse_even_within_it",
    ),
    Flaw(
        "CVE-2026-4366: a redirect is an answer",
        "web/fetch.py",
        "if response.status != 200:",
        "if response.status >= 400:",
        "web/test_fetch.py::test_redirect_is_a_failure",
    ),
]

"""The npm package jose, in Node, verifies our tokens with what it finds by the metadata of the live server."""

import json
import subprocess

import pytest

from tests.interop.conftest import NODE


@pytest.fixture
def verify(node_folder, live_server):
    def run(token, issuer=live_server.url, audience=live_server.url):
        done = subprocess.run(
            ["node", node_folder / "verify.mjs", issuer, audience],
            input=token,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_good_token(verify, live_server, token):
    claims = verify(token)
    assert claims["iss"] == live_server.url
    assert claims["client_id"] in {"first-party", "interop-job"}


def test_an_altered_token(verify, token, alter):
    assert verify(alter(token)) == {"refused": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"}


def test_another_audience(verify, token):
    assert verify(token, audience="https://api.example") == {"refused": "ERR_JWT_CLAIM_VALIDATION_FAILED"}


def test_the_lock_file_names_no_registry():
    lock = json.loads((NODE / "package-lock.json").read_text(encoding="utf-8"))
    packages = {path: package for path, package in lock["packages"].items() if path}
    assert packages
    assert all("resolved" not in package for package in packages.values())
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())

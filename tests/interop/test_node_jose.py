"""The npm package jose, in Node, verifies our tokens with what it finds by the metadata of the live server.

Needs node and npm: without them skipped, but for CI=true, where their absence is a failure.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"
# npm's words for a lock file that doesn't fit, or a package that isn't the one we locked: no accident.
OUR_FAULTS = {"EUSAGE", "EINTEGRITY", "EJSONPARSE", "ETARGET", "E404"}


def unavailable(reason):
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    for program in ("node", "npm"):
        if not shutil.which(program):
            unavailable(f"jose in Node is not tested: there is no {program} on the path")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "verify.mjs"):
        shutil.copy(NODE / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        word = re.search(r"npm (?:error|ERR!) code (\w+)", done.stderr)
        assert word is None or word[1] not in OUR_FAULTS, done.stderr
        unavailable(f"jose in Node is not tested: npm ci failed with {word[1] if word else done.returncode}")
    return folder / "verify.mjs"


@pytest.fixture
def verify(script, live_server):
    def run(token, issuer=live_server.url, audience=live_server.url):
        done = subprocess.run(
            ["node", script, issuer, audience],
            input=token,
            capture_output=True,
            text=True,
            timeout=60,
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

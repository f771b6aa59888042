"""Honest clients of applications in this process, for the short versions of the fault plan."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from flask import Flask

from tests.faults.history import History
from tests.faults.load import Answer, Clients, Http
from tokenserver.app import rooms_of


class AppHttp(Http):
    """Each node is an application in this process."""

    def __init__(self, urls: Sequence[str], apps: Sequence[Flask]) -> None:
        super().__init__(urls)
        self._clients = [app.test_client() for app in apps]

    def ask(self, node: int, path: str, **options: Any) -> Answer:
        places = {"form": "data", "body": "json", "headers": "headers"}
        sent = {place: options[name] for name, place in places.items() if options.get(name) is not None}
        method = options.get("method") or ("POST" if {"data", "json"} & set(sent) else "GET")
        response = self._clients[node % len(self._clients)].open(path, method=method, **sent)
        return Answer(response.status_code, {k.lower(): v for k, v in response.headers}, response.get_data())


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def clients_of(history: History) -> Callable[..., Clients]:
    """Clients of these applications, which share their stores."""

    def make(*apps: Flask, seed: int = 1) -> Clients:
        _, secret = rooms_of(apps[0]).clients.create(
            client_id="backend",
            client_name="A back end",
            grant_types=["client_credentials"],
            scope=["openid", "tokens:introspect"],
        )
        urls = [f"app {number}" for number in range(len(apps))]
        assert secret is not None
        return Clients(urls, secret, history, random.Random(seed), http=lambda urls: AppHttp(urls, apps))

    return make

"""The command line, for operators: one module per group of commands.

Modules import what a command needs when it runs, so that `tokenserver --help` answers at once.
"""

import os
import sys
from importlib import import_module
from typing import Final, cast

try:
    import click
except ModuleNotFoundError:
    sys.exit("tokenserver: only the verifier is installed here; the server is the extra: tokenserver[server]")

from tokenserver.cli.command import run

# Each in a module, which is loaded when it is asked for: `serve` would hold the others as long as it runs.
COMMANDS: Final = {
    "init": "server",
    "serve": "server",
    "doctor": "doctor",
    "db": "db",
    "keys": "keys",
    "client": "clients",
    "user": "users",
    "role": "roles",
    "session": "sessions",
    "audit": "audit",
    "openapi": "openapi",
}


class Program(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return cast("click.Command", getattr(import_module(f"tokenserver.cli.{COMMANDS[name]}"), name))


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tokenserver", message="%(version)s", help="Print the version.")
def program() -> None:
    """A standalone OAuth 2 and OpenID Connect token server.

    Settings come from TOKENSERVER_* variables and from .env; docs/configuration.md explains them.
    """


def main() -> None:
    os.umask(0o077)  # databases, keys and sockets are for the server's user alone
    sys.exit(run(program))

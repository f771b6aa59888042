"""The command line, for operators: one module per group of commands.

Modules import what a command needs when it runs, so that `tokenserver --help` answers at once.
"""

import os
import sys

try:
    import click
except ModuleNotFoundError:
    sys.exit("tokenserver: only the verifier is installed here; the server is the extra: tokenserver[server]")

from tokenserver.cli import audit, clients, db, doctor, keys, openapi, roles, server, sessions, users
from tokenserver.cli.command import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tokenserver", message="%(version)s", help="Print the version.")
def program() -> None:
    """A standalone OAuth 2 and OpenID Connect token server.

    Settings come from TOKENSERVER_* variables and from .env; docs/configuration.md explains them.
    """


for each in (
    server.init,
    server.serve,
    doctor.doctor,
    db.db,
    keys.keys,
    clients.client,
    users.user,
    roles.role,
    sessions.session,
    audit.audit,
    openapi.openapi,
):
    program.add_command(each)


def main() -> None:
    os.umask(0o077)  # databases, keys and sockets are for the server's user alone
    sys.exit(run(program))

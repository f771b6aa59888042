"""The command line, for operators: one module per group of commands.

Modules import what a command needs when it runs, so that `tokenserver --help` answers at once.
"""

import os
import sys

import click

from tokenserver.cli.clients import client
from tokenserver.cli.command import run
from tokenserver.cli.db import db
from tokenserver.cli.doctor import doctor
from tokenserver.cli.keys import keys
from tokenserver.cli.roles import role
from tokenserver.cli.server import init, serve
from tokenserver.cli.sessions import session
from tokenserver.cli.users import user


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tokenserver", message="%(version)s", help="Print the version.")
def program() -> None:
    """A standalone OAuth 2 and OpenID Connect token server.

    Settings come from TOKENSERVER_* variables and from .env; docs/configuration.md explains them.
    """


for each in (init, serve, doctor, db, keys, client, user, role, session):
    program.add_command(each)


def main() -> None:
    os.umask(0o077)  # databases, keys and sockets are for the server's user alone
    sys.exit(run(program))

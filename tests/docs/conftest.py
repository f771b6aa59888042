from tests.cli.conftest import deployment, empty, prepared
from tests.interop.conftest import node_folder
from tests.live_server import live_server

__all__ = ["deployment", "empty", "live_server", "node_folder", "prepared"]

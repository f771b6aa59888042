from tests.interop.conftest import node_folder
from tests.live_server import live_server

__all__ = ["live_server", "node_folder"]

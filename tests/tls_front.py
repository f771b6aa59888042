"""TLS in front of a server that speaks plain HTTP, as a proxy stands before it in production; on 127.0.0.1."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.certificates import Certificate

HOST = "127.0.0.1"
CHUNK = 64 * 1024


@contextmanager
def tls_front(certificate: Certificate, listener: socket.socket, port: int) -> Iterator[None]:
    """What comes in at `listener`, a bound socket, goes to `port`, byte by byte."""
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            back_reader, back_writer = await asyncio.open_connection(HOST, port)
            try:
                await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
            finally:
                writer.transport.abort()
                back_writer.transport.abort()

    async def end() -> None:
        server.close()
        tasks = asyncio.all_tasks(loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # what was aborted is closed by the loop
        loop.stop()

    server = loop.run_until_complete(
        asyncio.start_server(serve, sock=listener, ssl=certificate.context(), ssl_shutdown_timeout=1)
    )
    thread = threading.Thread(target=loop.run_forever, name="tls-front", daemon=True)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join(10)
        loop.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK):
        sink.write(chunk)
        await sink.drain()
    sink.close()


def listen() -> tuple[socket.socket, str]:
    """A bound socket, and the origin of what will be served there."""
    listener = socket.socket()
    listener.bind((HOST, 0))
    return listener, f"https://{HOST}:{listener.getsockname()[1]}"

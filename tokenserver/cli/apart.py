"""Work in a process of its own, which takes along when it ends what it had to load: some 60 MB of program, which
the process that owns the workers would otherwise hold as long as they live, and never use again.
"""

from collections.abc import Callable
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

from tokenserver.errors import StoreUnavailable, TokenserverError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

T = TypeVar("T")


def apart(work: Callable[..., T], *arguments: Any) -> T:
    """What `work` returns or raises there; it, its arguments and its result can be pickled.

    Raises TokenserverError when the process ends without a word. It ends when this call does, whatever ends it.
    """
    spawning = get_context("spawn")
    receiver, sender = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_tell, args=(sender, work, arguments), name=work.__name__, daemon=True)
    process.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        raise TokenserverError(private="a process that prepares the start was ended") from None
    finally:
        receiver.close()
        process.kill()
        process.join()
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _tell(sender: "Connection", work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        sender.send((work(*arguments), None))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised there
        driver_error = getattr(error.__cause__, "orig", None)
        if isinstance(error, StoreUnavailable) and driver_error is not None:
            error.private = f"{error.store}: {driver_error}"  # a cause isn't pickled
        sender.send((None, error))

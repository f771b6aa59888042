"""What a request does that a loop has put aside: nothing that stops the loop's thread."""

import threading

from greenlet import getcurrent
from sqlalchemy import create_engine, text

from tokenserver.storage.aside import Aside, elsewhere, loop
from tokenserver.storage.sql import Database


class Loop:
    """Has work done in a thread, as that of the HTTP server does, and counts it."""

    def __init__(self):
        self.threads = []

    def elsewhere(self, work):
        found = []
        thread = threading.Thread(target=lambda: found.append((work(), loop())))
        thread.start()
        thread.join()
        self.threads.append(thread)
        [(result, there)] = found
        assert there is None  # it may wait itself
        return result


def run_aside(work):
    """What it returns, and how often it was elsewhere."""

    class Task(Aside):
        def run(self):
            return work()

    task = Task(parent=getcurrent())
    task.loop = Loop()
    return task.switch(), len(task.loop.threads)


def test_every_transaction_of_who_was_put_aside_is_elsewhere(tmp_path):
    database = Database(create_engine(f"sqlite:///{tmp_path}/a.sqlite"))
    one = text("SELECT 1")
    assert run_aside(lambda: database.read(lambda tx: tx.scalar(one))) == (1, 1)
    assert run_aside(lambda: database.write(lambda tx: tx.scalar(one))) == (1, 1)
    assert database.read(lambda tx: tx.scalar(one)) == 1
    database.engine.dispose()


def test_who_has_a_thread_works_there():
    here = threading.current_thread()
    assert elsewhere(threading.current_thread) is here
    assert run_aside(lambda: elsewhere(threading.current_thread) is here) == (False, 1)

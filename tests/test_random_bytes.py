import os

from tokenserver.random_bytes import MANY, SIZE, random_bytes


def test_none_is_given_twice():
    given = [random_bytes() for _ in range(3 * MANY)]
    assert {len(each) for each in given} == {SIZE}
    assert len(set(given)) == len(given)


def test_a_forked_process_gives_others():
    random_bytes()  # so that there are some
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        os.write(writable, b"".join(random_bytes() for _ in range(MANY)))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(readable, SIZE * MANY)
    os.close(readable)
    os.close(writable)
    assert len(theirs) == SIZE * MANY
    ours = {random_bytes() for _ in range(MANY)}
    assert not ours & {theirs[start : start + SIZE] for start in range(0, len(theirs), SIZE)}

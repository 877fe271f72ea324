"""The lock of the renderer: held by one, handed on to whoever has waited for a turn longest."""

import threading
import time

from eugen_viewer.fair_lock import FairLock


def test_it_is_held_by_one_thread() -> None:
    lock, inside, most = FairLock(), [0], [0]

    def work() -> None:
        for _ in range(200):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]
    assert not lock.locked()


def test_it_is_handed_on_in_the_order_of_asking() -> None:
    """Also past the thread that releases it and wants it again at once."""
    lock, order = FairLock(), []

    def work(name: int) -> None:
        with lock:
            order.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(5)]
    with lock:
        for number, thread in enumerate(threads):
            thread.start()
            while len(lock._waiting) <= number:
                time.sleep(0.001)
    with lock:
        order.append(-1)
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3, 4, -1]


def test_it_goes_to_the_thread_that_has_not_had_it_for_longest() -> None:
    """A thread that had it once, long ago, comes before those that have had it since, though they wait longer."""
    lock, order = FairLock(), []
    begun, again = [threading.Event() for _ in range(4)], [threading.Event() for _ in range(4)]

    def work(name: int) -> None:
        for _ in range(2):
            with lock:
                order.append(name)
            begun[name].set()
            again[name].wait(20)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for name, thread in enumerate(threads):  # their first turns, in this order
        thread.start()
        assert begun[name].wait(20)
    with lock:
        for number, name in enumerate((3, 2, 1, 0)):  # they wait in another
            again[name].set()
            while len(lock._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3, 0, 1, 2, 3]


def test_it_is_given_back_after_an_error() -> None:
    lock = FairLock()
    try:
        with lock:
            assert lock.locked()
            raise KeyError
    except KeyError:
        pass
    assert not lock.locked()

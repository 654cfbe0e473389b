"""Several processes on one folder: nothing lost, nothing twice, and what a killed process held comes back."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue

from workflow_service.gateways.broker_folder import join

from .conftest import BOUND, Start, kill, leased, stop, wait_until, waiting
from .test_transport import publish, take


def said(program_output: str | None) -> str:
    """Return a program's line without its end."""
    return (program_output or "").strip()


def test_many_messages_between_processes(start: Start, folder: Path, url: str, tmp_path: Path) -> None:
    """6000 messages, three producers, two eager readers: each comes once, whole, and in its producer's order."""
    files = [tmp_path / f"consumer{number}" for number in range(2)]
    consumers = [start("consume.py", url, "load.test", file) for file in files]
    assert [said(consumer.stdout.readline()) for consumer in consumers if consumer.stdout] == ["ready", "ready"]
    producers = [start("produce.py", url, "load.test", name, "2000") for name in "abc"]
    assert [producer.wait(BOUND) for producer in producers] == [0, 0, 0]

    wait_until(lambda: sum(file.read_text().count("\n") for file in files) >= 6000, "6000 messages")
    assert [stop(consumer) for consumer in consumers] == [0, 0]

    lines = [[line.split() for line in file.read_text().splitlines()] for file in files]
    everything = Counter((producer, int(number)) for file in lines for producer, number, _, _ in file)
    assert everything == Counter((producer, number) for producer in "abc" for number in range(2000))
    assert {(whole, redelivered) for file in lines for _, _, whole, redelivered in file} == {("True", "False")}
    for file in lines:
        for name in "abc":
            numbers = [int(number) for producer, number, _, _ in file if producer == name]
            assert numbers == sorted(numbers)
    assert (waiting(folder), leased(folder), list((folder / "dead").iterdir())) == ([], [], [])
    assert not list((folder / "leased").iterdir())


def test_killed_consumers_messages_come_back(start: Start, connection: Connection, folder: Path) -> None:
    """After kill -9 an idle consumer gets what the dead one held, in the old order, marked as redelivered."""
    publish(connection, "q.x", *range(8))
    holder = start("hold.py", connection.as_uri(include_password=True), "q.x", "5")
    assert holder.stdout is not None
    assert said(holder.stdout.readline()) == "holding"
    assert len(leased(folder)) == 5
    received = []

    def on_message(body: int, message: object) -> None:
        received.append((body, message.delivery_info["redelivered"]))  # type: ignore[attr-defined]
        message.ack()  # type: ignore[attr-defined]

    with connection.Consumer([Queue("q.x")], callbacks=[on_message]):
        while len(received) < 3:
            connection.drain_events(timeout=BOUND)
        kill(holder)
        while len(received) < 8:
            connection.drain_events(timeout=BOUND)
    assert received == [(5, False), (6, False), (7, False), *((number, True) for number in range(5))]
    assert (waiting(folder), leased(folder)) == ([], [])


def test_stopped_consumer_keeps_its_messages(start: Start, connection: Connection, folder: Path) -> None:
    """A living process is never robbed, however silent it is; asked to end, it gives its messages back itself."""
    publish(connection, "q", "held")
    holder = start("hold.py", connection.as_uri(include_password=True), "q", "1")
    assert holder.stdout is not None
    assert said(holder.stdout.readline()) == "holding"
    owner = join(folder)
    assert owner.recover_dead() == 0
    owner.leave()
    assert connection.default_channel.basic_get("q") is None
    assert stop(holder) == 0
    assert take(connection, "q").delivery_info["redelivered"] is True


def test_what_a_killed_producer_was_writing_is_removed(start: Start, connection: Connection, folder: Path) -> None:
    """An unfinished message of a dead process is never delivered, and does not stay."""
    publish(connection, "q", "x")
    holder = start("hold.py", connection.as_uri(include_password=True), "q", "1")
    assert holder.stdout is not None
    assert said(holder.stdout.readline()) == "holding"
    (place,) = [path for path in (folder / "leased").iterdir() if path.name.startswith(f"{holder.pid}-")]
    (place / ".new" / f"{1:020d}.{place.name}.0").write_bytes(b'{"body": "hal')
    kill(holder)
    owner = join(folder)
    assert owner.recover_dead() == 1
    owner.leave()
    assert not place.exists()
    assert len(waiting(folder)) == 1


def test_second_connection_does_not_drop_the_processes_lock(
    start: Start, connection: Connection, folder: Path
) -> None:
    """POSIX locks end with any descriptor of the file: opening and closing connections must never touch ours."""
    publish(connection, "q", "mine")
    message = take(connection, "q")
    for _ in range(3):
        with connection.clone() as other:
            other.connect()
    look = start("look.py", folder)
    assert look.communicate(timeout=BOUND)[0] == "0\n"
    assert len(leased(folder)) == 1
    message.ack()


def test_forked_child_is_not_its_parent(start: Start, connection: Connection, folder: Path) -> None:
    """A child cannot end, give back or unlock what its parent holds, and can use the broker itself."""
    publish(connection, "q", "parents", "childs")
    message = take(connection, "q")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            message.channel.qos.ack(message.delivery_tag)
            mine = connection.default_channel.basic_get("q")
            if mine is not None and mine.payload == "childs":
                mine.ack()
                publish(connection, "answers", "from the child")
                connection.release()
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert take(connection, "answers").payload == "from the child"
    look = start("look.py", folder)
    assert look.communicate(timeout=BOUND)[0] == "0\n"
    assert message.delivery_tag.split("/")[1] in leased(folder)
    message.ack()
    assert connection.default_channel.basic_get("q") is None


def test_transient_queue_of_a_killed_process_goes(connection: Connection, folder: Path) -> None:
    """A reply queue whose process died is deleted by whoever looks next, unless another living one declared it."""
    connection.connect()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        with connection.clone() as mine:
            for name in ("shared", "alone"):
                Queue(name, auto_delete=True)(mine.default_channel).declare()
            os.write(write_end, b"!")
            os.kill(os.getpid(), 9)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b"!"
    os.waitpid(pid, 0)
    Queue("shared", auto_delete=True)(connection.default_channel).declare()
    owner = join(folder)
    assert owner.recover_dead() == 1
    assert (owner.has("shared"), owner.has("alone")) == (True, False)
    owner.leave()


def test_transient_queue_goes_though_its_remover_dies_too(
    connection: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends right after removing a dead one's place has removed its reply queues before."""
    remove = shutil.rmtree
    pid = os.fork()
    if pid == 0:
        with connection.clone() as mine:
            Queue("replies", Exchange("news", type="fanout"), auto_delete=True)(mine.default_channel).declare()
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert list((folder / "queues").iterdir())

    def remove_and_die(place: Path, **options: bool) -> None:
        remove(place, **options)
        raise KeyboardInterrupt

    owner = join(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove_and_die)
        with pytest.raises(KeyboardInterrupt):
            owner.recover_dead()
    owner.recover_dead()
    owner.leave()
    assert not list((folder / "queues").iterdir())
    assert not list((folder / "exchanges" / "news").iterdir())


@pytest.mark.parametrize("leftover", ["empty place", "no lock file"])
def test_half_made_place_is_removed(connection: Connection, folder: Path, leftover: str) -> None:
    """A process that died while it joined or left leaves nothing that stays."""
    publish(connection, "q", "x")
    place = folder / "leased" / "1-0123456789ab"
    place.mkdir()
    if leftover == "no lock file":
        (place / "q").mkdir()
        (folder / "queues" / "q" / waiting(folder)[0]).rename(place / "q" / f"{1:020d}.p.0")
    owner = join(folder)
    assert owner.recover_dead() == 1
    owner.leave()
    assert not place.exists()
    assert len(waiting(folder)) == 1

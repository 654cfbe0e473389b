"""What kombu sees: delivery, order, acknowledgement, exchanges, addresses and errors, within one process."""

import errno
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.message import Message

from workflow_service.gateways.broker_folder import join
from workflow_service.gateways.filesystem_broker import Channel, broker_url

from .conftest import leased, waiting


def publish(connection: Connection, queue: str, *bodies: object) -> None:
    """Publish to a queue by its name."""
    producer = connection.Producer()
    for body in bodies:
        producer.publish(body, routing_key=queue, declare=[Queue(queue)])


def take(connection: Connection, queue: str) -> Message:
    """Return the next message of a queue, which must be there."""
    message = connection.default_channel.basic_get(queue)
    assert message is not None
    return message


def test_messages_come_in_the_order_they_were_put(connection: Connection) -> None:
    """First in, first out, also beyond what one listing hands out."""
    publish(connection, "q", *range(150))
    received = []
    for _ in range(150):
        message = take(connection, "q")
        received.append(message.payload)
        message.ack()
    assert received == list(range(150))


def test_message_is_leased_until_acknowledged(connection: Connection, folder: Path) -> None:
    """Taking a message moves it; only the acknowledgement deletes it."""
    publish(connection, "q", "work")
    message = take(connection, "q")
    assert (len(waiting(folder)), len(leased(folder))) == (0, 1)
    message.ack()
    assert (waiting(folder), leased(folder)) == ([], [])


def test_requeued_message_is_next_again(connection: Connection) -> None:
    """A requeued message returns to its old place, marked as redelivered, not to the end."""
    publish(connection, "q", "a", "b", "c")
    first = take(connection, "q")
    assert first.delivery_info["redelivered"] is False
    first.requeue()
    again = take(connection, "q")
    assert again.payload == "a"
    assert again.delivery_info["redelivered"] is True
    assert again.headers["redelivered"] is True


def test_rejected_message_is_deleted(connection: Connection, folder: Path) -> None:
    """A reject without requeue ends the message."""
    publish(connection, "q", "a")
    take(connection, "q").reject()
    assert (waiting(folder), leased(folder)) == ([], [])


def test_closing_a_channel_gives_back_what_it_held(connection: Connection) -> None:
    """Unacknowledged messages of a closed channel wait again, in order; acknowledged ones do not."""
    publish(connection, "q", "a", "b", "c")
    channel = connection.channel()
    held = [channel.basic_get("q") for _ in range(3)]
    held[1].ack()
    channel.close()
    assert [take(connection, "q").payload, take(connection, "q").payload] == ["a", "c"]
    assert connection.default_channel.basic_get("q") is None


def test_late_acknowledgement_cannot_delete_a_message_that_was_given_back(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """After its channel closed, an acknowledgement changes nothing, and the log says so."""
    publish(connection, "q", "a")
    channel = connection.channel()
    message = channel.basic_get("q")
    channel.close()
    channel.qos.ack(message.delivery_tag)
    assert "it will be delivered again" in caplog.text
    assert take(connection, "q").payload == "a"


def test_giving_back_what_is_not_held_makes_no_queue(folder: Path) -> None:
    """A message that is gone already leaves no queue behind."""
    owner = join(folder)
    try:
        assert not owner.give_back(f"ghost/{1:020d}.someone.0")
        assert not owner.has("ghost")
    finally:
        owner.leave()


def test_wake_up_never_reaches_the_descriptors_next_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO that is being set closes only afterwards: its descriptor's number is not somebody else's by then."""
    owner = join(folder)
    wake = owner.open_wake()
    closing = threading.Thread(target=owner.close_wake, args=(wake,))
    write, written = os.writev, []

    def close_then_write(fd: int, data: list[bytes]) -> int:
        closing.start()
        closing.join(0.2)  # long enough for a close that does not wait
        written.append(stat.S_ISFIFO(os.fstat(fd).st_mode))
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", close_then_write)
        wake.set()
    closing.join()
    owner.leave()
    assert written == [True]
    assert wake.fd == -1


@pytest.mark.parametrize("library", ["eventlet", "gevent"])
def test_wakes_do_not_wait_under_greenlets(folder: Path, library: str) -> None:
    """Clearing an empty FIFO and setting a full one return at once where `os` waits for others instead."""
    patch = {
        "eventlet": "import eventlet; eventlet.monkey_patch()",
        "gevent": "import gevent.monkey as m; m.patch_all()",
    }
    source = f"""
{patch[library]}
import os
from pathlib import Path
from workflow_service.gateways.broker_folder import Wake
wake = Wake(Path({str(folder)!r}, "wake"))
wake.clear()
for _ in range(70_000):  # more than a pipe holds
    wake.set()
wake.wait(60)
wake.clear()
wake.close()
print("went on")
"""
    folder.mkdir(exist_ok=True)
    ended = subprocess.run(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert ended.stdout == "went on\n"


def test_prefetch_limit_holds_until_an_acknowledgement(connection: Connection) -> None:
    """A consumer is sent no more than its limit, and the next one as soon as it acknowledges."""
    publish(connection, "q", *range(5))
    received: list[Message] = []
    channel = connection.channel()
    with connection.Consumer([Queue("q")], channel=channel, on_message=received.append) as consumer:
        consumer.qos(prefetch_count=2)
        for _ in range(2):
            connection.drain_events(timeout=10)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0)
        received[0].ack()
        connection.drain_events(timeout=10)
    assert [message.payload for message in received] == [0, 1, 2]


def test_no_ack_consumer_leaves_no_lease(connection: Connection, folder: Path) -> None:
    """What is consumed or got without acknowledgement is gone when it is delivered."""
    publish(connection, "q", "a", "b")
    received: list[Message] = []
    with connection.Consumer([Queue("q")], on_message=received.append, no_ack=True):
        connection.drain_events(timeout=10)
    assert received[0].payload == "a"
    got = connection.default_channel.basic_get("q", no_ack=True)
    assert got is not None
    assert got.payload == "b"
    assert (waiting(folder), leased(folder)) == ([], [])


@pytest.mark.parametrize("name", ["a.b", "..", ".hidden", "a/b", "a%2Eb", "ünï côde", "x" * 255, "ö" * 255])
def test_any_queue_name_is_a_folder_of_its_own(connection: Connection, folder: Path, name: str) -> None:
    """Dots, slashes, escapes and length do not mix queues up or lead out of the folder."""
    others = ["a", "b", "a.b.c", "a%2Eb%2Ec", "x" * 254, "ö" * 254]
    publish(connection, name, name)
    for other in others:
        publish(connection, other, other)
    message = take(connection, name)
    assert message.payload == name
    message.ack()
    assert connection.default_channel.basic_get(name) is None
    assert [take(connection, other).payload for other in others] == others
    assert len(list((folder / "queues").iterdir())) == 1 + len(others)


def test_size_purge_and_delete_count_waiting_messages_only(connection: Connection, folder: Path) -> None:
    """A leased message is neither counted nor purged; deleting the queue removes its folder."""
    publish(connection, "q", *range(4))
    held = take(connection, "q")
    channel = connection.default_channel
    assert channel.queue_declare("q", passive=True).message_count == 3
    assert channel.queue_purge("q") == 3
    held.requeue()
    channel.queue_delete("q", if_empty=True)
    assert len(waiting(folder)) == 1
    channel.queue_delete("q")
    assert not list((folder / "queues").iterdir())
    with pytest.raises(connection.channel_errors, match="no queue 'q'"):
        channel.queue_declare("q", passive=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"body": "e30="}',
        b'{"body": "e30", "properties": {"delivery_info": {}, "body_encoding": "base64"}}',
        b'{"body": "", "properties": {"delivery_info": 7}}',
    ],
)
def test_corrupt_message_is_moved_aside(
    connection: Connection, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no message goes to dead/ with a log line; the next message is delivered."""
    publish(connection, "q.x", "damaged", "fine")
    victim = folder / "queues" / "q%2Ex" / waiting(folder)[0]
    victim.write_bytes(content)
    assert take(connection, "q.x").payload == "fine"
    grave = folder / "dead" / "q%2Ex" / victim.name
    assert grave.read_bytes() == content
    assert str(grave) in caplog.text


def test_strange_file_is_moved_aside(connection: Connection, folder: Path) -> None:
    """A file or folder that we did not name does not block a queue."""
    publish(connection, "q", "fine")
    queue = folder / "queues" / "q"
    (queue / "0 notes.txt").write_text("hello")
    (queue / f"{0:020d}.someone.0").mkdir()
    assert take(connection, "q").payload == "fine"
    assert len(list((folder / "dead" / "q").iterdir())) == 2


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O error"), MemoryError()]
)
@pytest.mark.parametrize(("part", "name"), [(Path, "read_bytes"), (Channel, "_payload")])
def test_message_outlives_the_trouble_of_its_reader(
    connection: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch, part: type, name: str, error: Exception
) -> None:
    """Without a descriptor, memory or a working disk nothing is taken: the error is raised, the message waits."""

    def fail(*_: object) -> bytes:
        raise error

    publish(connection, "q", "first", "second")
    with monkeypatch.context() as patch:
        patch.setattr(part, name, fail)
        with pytest.raises((OperationalError, MemoryError)):
            connection.default_channel.basic_get("q")
    assert (len(waiting(folder)), leased(folder), list((folder / "dead").iterdir())) == (2, [], [])
    assert take(connection, "q").payload == "first"


def test_topic_reaches_each_queue_with_a_lease_of_its_own(connection: Connection, folder: Path) -> None:
    """Copies of one message in two queues are acknowledged apart."""
    exchange = Exchange("weather", type="topic")
    queues = [Queue("rain", exchange, "*.rain"), Queue("all", exchange, "#"), Queue("sun", exchange, "*.sun")]
    connection.Producer().publish("wet", exchange=exchange, routing_key="north.rain", declare=queues)
    channel = connection.default_channel
    rain, everything = take(connection, "rain"), take(connection, "all")
    assert channel.basic_get("sun") is None
    rain.ack()
    assert len(leased(folder)) == 1
    everything.ack()


def test_fanout_and_bindings_are_shared_between_connections(connection: Connection, url: str) -> None:
    """A producer reaches queues that another connection bound, and no longer after they were unbound."""
    exchange = Exchange("news", type="fanout")
    bound = [Queue(name, exchange)(connection.default_channel) for name in ("one", "two")]
    for queue in bound:
        queue.declare()
    with Connection(url) as other:
        other.Producer().publish("hello", exchange=exchange, declare=[exchange])
        assert [take(connection, name).payload for name in ("one", "two")] == ["hello", "hello"]
        bound[0].unbind_from(exchange)
        bound[1].delete()
        other.Producer().publish("nobody", exchange=exchange, declare=[exchange])
    assert connection.default_channel.basic_get("one") is None
    assert connection.default_channel.basic_get("two") is None


def test_transient_queue_ends_with_its_owner(connection: Connection, folder: Path, url: str) -> None:
    """An auto-delete queue and its bindings go with the process that declared them; a durable one stays."""
    exchange = Exchange("news", type="fanout")
    publish(connection, "kept", "x")
    Queue("passing", exchange, auto_delete=True)(connection.default_channel).declare()
    connection.release()
    assert [path.name for path in (folder / "queues").iterdir()] == ["kept"]
    assert not list((folder / "exchanges" / "news").iterdir())


def test_closing_one_of_two_connections_keeps_the_leases_of_the_other(connection: Connection, url: str) -> None:
    """Connections of one process share its place; the messages of one survive the other's end."""
    publish(connection, "q", "mine")
    message = take(connection, "q")
    with Connection(url) as other:
        other.connect()
        other.default_channel.queue_declare("q")
    with Connection(url) as third:
        assert third.default_channel.basic_get("q") is None
    message.ack()


def test_nobody_else_can_read(connection: Connection, folder: Path) -> None:
    """Folders are 0700 and files 0600 whatever the umask, and a folder that was open is closed to others."""
    connection.release()
    folder.chmod(0o755)
    before = os.umask(0)
    try:
        with Connection(broker_url(folder)) as again:
            publish(again, "q", "secret")
            take(again, "q")
            publish(again, "q", "secret")
            for path in [folder, *folder.rglob("*")]:
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(before)


def test_address_may_hold_any_character(tmp_path: Path, folder: Path) -> None:
    """Spaces, separators and per cent signs in a folder's name survive the way through an address."""
    odd = folder / "a b;c?d#e%20f@g:h+i[j]é"
    with Connection(broker_url(odd)) as connection:
        publish(connection, "q", "x")
        with connection.clone() as clone:
            assert take(clone, "q").payload == "x"
    assert (odd / "queues" / "q").is_dir()


@pytest.mark.parametrize("address", ["safefs://", "safefs:///", "safefs://var/broker"])
def test_address_without_absolute_folder_is_refused(folder: Path, address: str) -> None:
    """An address that names no folder, or one with two slashes, says how to write it."""
    with pytest.raises(ValueError, match="after three slashes"):
        Connection(address).connect()


def test_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    """A path through a file is refused with the folder's name."""
    folder.write_text("a file")
    with pytest.raises(OperationalError, match=r"'.*/broker/inner' does not work: Not a directory"):
        Connection(broker_url(folder / "inner")).transport.establish_connection()


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_folder_of_something_else_is_refused(folder: Path, mode: int) -> None:
    """A folder that holds other files, or that all users share, is named in the error and left as it is."""
    folder.mkdir()
    if mode == 0o755:
        (folder / "letter.txt").touch()
    folder.chmod(mode)
    before = list(folder.iterdir())
    with pytest.raises(OperationalError, match=r"no message broker's.*/broker'"):
        Connection(broker_url(folder)).transport.establish_connection()
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    assert list(folder.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_folder_of_another_user_is_refused(folder: Path) -> None:
    """Messages are not read from a folder that somebody else controls."""
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(OperationalError, match="belongs to another user"):
        Connection(broker_url(folder)).transport.establish_connection()


def test_message_that_cannot_be_written_raises_and_leaves_nothing(connection: Connection, folder: Path) -> None:
    """Where a write fails, as on a full disk, the error names the folder and no part of the message stays."""
    publish(connection, "q", "fits")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OperationalError, match=r"broker folder '.*/broker' does not work: File too large"):
            connection.Producer().publish("x" * 100_000, routing_key="q", retry=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(waiting(folder)) == 1
    assert not list((folder / "leased").glob("*/.new/*"))


def test_consumer_notices_that_its_folder_was_removed(connection: Connection, folder: Path) -> None:
    """A consumer whose folder is deleted under it raises, so that Celery connects again, to a new folder."""
    publish(connection, "q", "lost")
    with connection.Consumer([Queue("q")], callbacks=[lambda *_: None]):
        connection.drain_events(timeout=10)
        folder.rename(folder.with_name("taken away"))
        with pytest.raises(OperationalError, match="lock file was removed"):
            connection.drain_events(timeout=10)
    with Connection(broker_url(folder)) as again:
        publish(again, "q", "found")
        assert take(again, "q").payload == "found"

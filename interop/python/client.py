#!/usr/bin/env python3
"""Programs for the Apache C++ client, by its Python wheel.

    client.py <name server> [SCENARIO...]

Prints a line for each scenario, and ends with 0 if all of them held and with 1 otherwise.
"""

import os
import sys
import threading
import time
from collections.abc import Callable

from rocketmq.client import Message, Producer, PushConsumer, SendStatus

PATIENCE_SECONDS = float(os.environ.get("INTEROP_PATIENCE", "90"))
POLL_SECONDS = 0.01
# A client asks for its routes again 10 ms after its start, and fills the list of queues that it chooses from one by one
# while it sends: it may find no queue, or choose another one. Nothing tells when that is over.
SETTLED_SECONDS = 0.5


class Tally:
    """What was sent, acknowledged and consumed, by the text of the message."""

    def __init__(self, scenario: str):
        self.prefix = f"{scenario} message "
        self.lock = threading.Lock()
        self.sent: list[str] = []
        self.acknowledged: dict[str, int] = {}
        self.consumed: dict[str, int] = {}
        self.failures: list[str] = []

    def next(self, topic: str, tags: str = "TagA") -> tuple[str, Message]:
        with self.lock:
            text = f"{self.prefix}{len(self.sent)}"
            self.sent.append(text)
        message = Message(topic)
        message.set_keys(f"key-{len(self.sent) - 1}")
        message.set_tags(tags)
        message.set_body(text)
        return text, message

    def accepted(self, text: str, result) -> None:
        self.check(result.status == SendStatus.OK, f"send status {result.status}")
        with self.lock:
            self.acknowledged[text] = result.offset

    def received(self, message) -> None:
        text = message.body.decode()
        with self.lock:
            self.consumed[text] = self.consumed.get(text, 0) + 1

    def check(self, condition: bool, failure: str) -> None:
        if not condition:
            with self.lock:
                self.failures.append(failure)

    def lost(self) -> int:
        with self.lock:
            return sum(text not in self.consumed for text in self.acknowledged)

    def await_consumed(self) -> None:
        if not wait(lambda: self.lost() == 0):
            raise RuntimeError("waited in vain for messages")

    def close(self) -> str:
        phantom = sum(text not in set(self.sent) for text in self.consumed)
        duplicated = sum(count - 1 for count in self.consumed.values())
        self.check(self.lost() == 0, f"{self.lost()} acknowledged messages were not consumed")
        self.check(phantom == 0, f"{phantom} messages were consumed that nobody sent")
        return (
            f"sent={len(self.sent)} acknowledged={len(self.acknowledged)} consumed={len(self.consumed)} "
            f"duplicated={duplicated} lost={self.lost()} phantom={phantom}"
        )


def wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


class Run:
    """One play of a scenario: its names and its clients."""

    def __init__(self, name_server: str, scenario: str):
        self.name_server = name_server
        self.suffix = f"cpp-{scenario}-{time.time_ns() // 1_000_000}"
        self.topic = f"interop-{self.suffix}"
        self.clients: list = []

    def producer(self) -> Producer:
        producer = Producer(f"producer-{self.suffix}")
        producer.set_namesrv_addr(self.name_server)
        producer.start()
        self.clients.append(producer)
        time.sleep(SETTLED_SECONDS)
        return producer

    def consumer(self, callback, orderly: bool = False, tags: str = "*", group: str = "consumer") -> PushConsumer:
        consumer = PushConsumer(f"{group}-{self.suffix}", orderly=orderly)
        consumer.set_namesrv_addr(self.name_server)
        consumer.subscribe(self.topic, callback, tags)
        consumer.start()
        self.clients.append(consumer)
        return consumer

    def close(self) -> None:
        for client in reversed(self.clients):
            client.shutdown()


def sync_send(run: Run, tally: Tally) -> None:
    producer = run.producer()
    for _ in range(50):
        text, message = tally.next(run.topic)
        tally.accepted(text, producer.send_sync(message))
    run.consumer(tally.received)
    tally.await_consumed()


def oneway(run: Run, tally: Tally) -> None:
    producer = run.producer()
    for _ in range(50):
        _, message = tally.next(run.topic)
        producer.send_oneway(message)
    run.consumer(tally.received)
    tally.check(wait(lambda: len(tally.consumed) == 50), "oneway messages are missing")


def push_consume(run: Run, tally: Tally) -> None:
    producer = run.producer()
    text, message = tally.next(run.topic)
    tally.accepted(text, producer.send_sync(message))
    run.consumer(tally.received)
    tally.await_consumed()
    for _ in range(100):
        text, message = tally.next(run.topic)
        tally.accepted(text, producer.send_sync(message))
    tally.await_consumed()


def orderly(run: Run, tally: Tally) -> None:
    """The steps of an order go to one queue, and come in its order. The wheel does not tell whose queue it is."""
    producer = run.producer()
    for step in range(10):
        for order in range(5):
            text, message = tally.next(run.topic)
            message.set_property("order", str(order))
            message.set_property("step", str(step))
            tally.accepted(text, producer.send_orderly(message, order))
    steps: dict[bytes, list[int]] = {}
    queues: dict[bytes, list[tuple[int, int]]] = {}

    def consume(message) -> None:
        tally.received(message)
        steps.setdefault(message["order"], []).append(int(message["step"]))
        queues.setdefault(message["order"], []).append((message.queue_id, message.queue_offset))

    run.consumer(consume, orderly=True)
    tally.await_consumed()
    for order, seen in steps.items():
        first = list(dict.fromkeys(seen))
        tally.check(first == list(range(10)), f"order {order} came as {seen} from {queues[order]}")


def batch(run: Run, tally: Tally) -> None:
    producer = run.producer()
    pairs = [tally.next(run.topic) for _ in range(20)]
    result = producer.send_batch([message for _, message in pairs])
    for text, _ in pairs:
        tally.accepted(text, result)
    run.consumer(tally.received)
    tally.await_consumed()


def tag_filter(run: Run, tally: Tally) -> None:
    producer = run.producer()
    wanted = set()
    for number in range(30):
        tags = ("Coffee", "Tea", "Water")[number % 3]
        text, message = tally.next(run.topic, tags)
        tally.accepted(text, producer.send_sync(message))
        if tags != "Tea":
            wanted.add(text)
    filtered: set[str] = set()
    run.consumer(lambda message: filtered.add(message.body.decode()), tags="Coffee || Water", group="choosy")
    run.consumer(tally.received)
    tally.await_consumed()
    tally.check(wait(lambda: filtered >= wanted), f"{len(filtered)} messages passed the filter of {len(wanted)}")
    tally.check(filtered <= wanted, "messages passed the filter whose tag nobody asked for")


def delay(run: Run, tally: Tally) -> None:
    producer = run.producer()
    text, message = tally.next(run.topic)
    tally.accepted(text, producer.send_sync(message))
    arrived: dict[str, float] = {}

    def consume(message) -> None:
        arrived[message.body.decode()] = time.time()
        tally.received(message)

    run.consumer(consume)
    tally.await_consumed()
    sent = {}
    for _ in range(5):
        text, message = tally.next(run.topic)
        message.set_delay_time_level(1)
        sent[text] = time.time()
        tally.accepted(text, producer.send_sync(message))
    tally.await_consumed()
    for text, since in sent.items():
        tally.check(arrived[text] - since >= 0.998, f"{text} came after {arrived[text] - since:.3f} s")


def retry(run: Run, tally: Tally) -> None:
    """The wheel turns an exception of the listener into RECONSUME_LATER; the message comes again after 10 s."""
    producer = run.producer()
    for _ in range(4):
        text, message = tally.next(run.topic)
        tally.accepted(text, producer.send_sync(message))
    tries: dict[str, int] = {}

    def consume(message) -> None:
        text = message.body.decode()
        tries[text] = tries.get(text, 0) + 1
        if tries[text] == 1:
            raise RuntimeError("the first try fails")
        tally.received(message)

    run.consumer(consume)
    tally.await_consumed()
    tally.check(all(count >= 2 for count in tries.values()), f"tries {tries}")


SCENARIOS = {
    "sync-send": sync_send,
    "oneway": oneway,
    "push-consume": push_consume,
    "orderly": orderly,
    "batch": batch,
    "tag-filter": tag_filter,
    "delay": delay,
    "retry": retry,
}


def play(name_server: str, name: str) -> bool:
    run, tally, start = Run(name_server, name), Tally(name), time.monotonic()
    try:
        SCENARIOS[name](run, tally)
    except Exception as failure:
        tally.check(False, f"{type(failure).__name__}: {failure}")
    run.close()
    counts = tally.close()
    millis = int((time.monotonic() - start) * 1000)
    verdict = "FAIL" if tally.failures else "PASS"
    reasons = ": " + "; ".join(tally.failures[:5]) if tally.failures else ""
    print(f"{verdict} {name} client=cpp {counts} millis={millis}{reasons}", flush=True)
    return not tally.failures


def main() -> None:
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(SCENARIOS):
        sys.exit(__doc__ + "\nScenarios: " + " ".join(SCENARIOS))
    held = [play(sys.argv[1], name) for name in sys.argv[2:] or SCENARIOS]
    sys.stdout.flush()
    # The library's threads may still be at work, and have nothing to lose.
    os._exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()

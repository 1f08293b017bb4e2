"""hub: a queue for each client, bounded in messages and bytes; the oldest make room, and losses are counted."""

import asyncio
from collections import deque


class Subscription:
    def __init__(self, messages: int, size: int) -> None:
        self.limit, self.size = messages, size
        self.queue, self.bytes = deque(), 0
        self.published = self.seen = 0
        self.ended = False
        self.changed = asyncio.Event()

    def push(self, message: bytes) -> None:
        while self.queue and (len(self.queue) >= self.limit or self.bytes + len(message) > self.size):
            self.bytes -= len(self.queue.popleft()[1])
        if len(message) <= self.size:
            self.queue.append((self.published, message))
            self.bytes += len(message)
        self.published += 1
        self.changed.set()

    async def deliveries(self):
        while True:
            while self.queue or self.seen < self.published:
                number = self.queue[0][0] if self.queue else self.published
                if number > self.seen:
                    lost, self.seen = number - self.seen, number
                    yield "lost", lost
                else:
                    message = self.queue.popleft()[1]
                    self.bytes -= len(message)
                    self.seen += 1
                    yield "message", message
            if self.ended:
                return
            self.changed.clear()
            await self.changed.wait()


class Hub:
    def __init__(self) -> None:
        self.clients = set()

    def subscribe(self, messages: int, size: int) -> Subscription:
        client = Subscription(messages, size)
        self.clients.add(client)  # until somebody discards it: there is no drop
        return client

    def publish(self, message: bytes) -> None:
        for client in self.clients:
            client.push(message)

    def close(self) -> None:
        for client in self.clients:
            client.ended = True
            client.changed.set()


async def main() -> None:
    hub = Hub()
    quick, slow, small = hub.subscribe(10, 1000), hub.subscribe(2, 1000), hub.subscribe(10, 20)

    async def read(client: Subscription) -> list:
        return [delivery async for delivery in client.deliveries()]

    reading = asyncio.create_task(read(quick))
    for number in range(5):
        hub.publish(b"message %d" % number)
        await asyncio.sleep(0)
    hub.close()
    print("quick:", len(await reading))
    print("slow:", await read(slow))
    print("small:", await read(small))


asyncio.run(main())

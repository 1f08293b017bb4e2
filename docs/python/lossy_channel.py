"""lossy_channel: the sender never waits; the oldest item makes room, and losses are counted."""

import asyncio
from collections import deque


class LossyChannel:
    def __init__(self, capacity: int) -> None:
        # A deque with maxlen drops the oldest by itself, and tells nobody: hence the numbers.
        self.queue = deque(maxlen=capacity)
        self.sent = self.seen = 0
        self.ended = False
        self.changed = asyncio.Event()

    def send(self, item) -> None:
        self.queue.append((self.sent, item))
        self.sent += 1
        self.changed.set()

    def end(self) -> None:
        self.ended = True
        self.changed.set()

    async def events(self):
        while True:
            while self.queue:
                number, _ = self.queue[0]
                if number > self.seen:
                    lost, self.seen = number - self.seen, number
                    yield "lost", lost
                else:
                    self.seen += 1
                    yield "item", self.queue.popleft()[1]
            if self.ended:
                return
            self.changed.clear()
            await self.changed.wait()


async def main() -> None:
    channel = LossyChannel(3)

    async def receive() -> None:
        async for event in channel.events():
            print(*event)
            await asyncio.sleep(0.03)

    receiving = asyncio.create_task(receive())
    for number in range(10):
        channel.send(number)
        if number == 0:
            await asyncio.sleep(0)  # the receiver takes it, and is busy during the rest
    channel.end()
    await receiving


asyncio.run(main())

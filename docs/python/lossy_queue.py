"""lossy_queue: the oldest is dropped, and what was lost is counted by hand."""

import asyncio
from collections import deque


class LossyQueue:
    def __init__(self, capacity: int) -> None:
        self.items, self.filled, self.lost, self.closed = deque(maxlen=capacity), asyncio.Event(), 0, False

    def send(self, item) -> None:
        # A deque says nothing when it drops its oldest item.
        self.lost += len(self.items) == self.items.maxlen
        self.items.append(item)
        self.filled.set()

    def close(self) -> None:
        self.closed = True
        self.filled.set()

    async def recv(self):
        while not self.items:
            if self.closed:
                return None
            self.filled.clear()
            await self.filled.wait()
        return self.items.popleft()


async def main() -> None:
    queue = LossyQueue(2)

    async def sensor() -> None:
        for number in range(10):
            queue.send(number)
            await asyncio.sleep(0)
        queue.close()

    sending = asyncio.create_task(sensor())
    stored = []
    while (number := await queue.recv()) is not None:
        stored.append(number)
        for _ in range(3):  # storing one takes as long as three readings
            await asyncio.sleep(0)
    await sending
    print("stored", stored, "lost", queue.lost)


asyncio.run(main())

"""fan_out: a list of queues. Each subscriber has a policy for a full one."""

import asyncio


class FanOut:
    def __init__(self) -> None:
        self.subscribers = []

    def subscribe(self, capacity: int, when_full: str) -> asyncio.Queue:
        queue = asyncio.Queue(capacity)
        self.subscribers.append((queue, when_full))
        return queue

    async def publish(self, item) -> None:
        for queue, when_full in self.subscribers:
            if when_full == "block":
                # Cancelled here, the item is with those before in the list and not with those after.
                await queue.put(item)
            elif not queue.full():
                queue.put_nowait(item)
            elif when_full == "drop oldest":
                queue.get_nowait()  # nobody is told
                queue.put_nowait(item)

    async def end(self) -> None:
        for queue, _ in self.subscribers:
            await queue.put(None)


async def main() -> None:
    fan_out = FanOut()
    policies = ["block", "drop oldest", "drop newest"]
    queues = [fan_out.subscribe(3, policy) for policy in policies]
    seen = [[], [], []]

    async def read(number: int) -> None:
        while (item := await queues[number].get()) is not None:
            seen[number].append(item)
            await asyncio.sleep(0.02)

    reading = [asyncio.create_task(read(number)) for number in range(2)]
    for item in range(1, 9):
        await fan_out.publish(item)
    late = asyncio.create_task(read(2))
    await fan_out.end()
    await asyncio.gather(*reading, late)
    print("block got everything:", seen[0] == list(range(1, 9)))
    print("drop oldest ends with the last:", seen[1][-1] == 8)
    print("drop newest begins with the first:", seen[2][:3] == [1, 2, 3])


asyncio.run(main())

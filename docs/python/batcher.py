"""batcher: at most four events a batch, none waits longer than 50 ms for others."""

import asyncio

END = object()


async def batches(queue: asyncio.Queue, items: int, delay: float):
    loop = asyncio.get_running_loop()
    while (first := await queue.get()) is not END:
        batch, deadline = [first], loop.time() + delay
        while len(batch) < items:
            try:
                # The remaining time: a new timeout of 50 ms at each turn would never end under a trickle.
                item = await asyncio.wait_for(queue.get(), deadline - loop.time())
            except TimeoutError:
                break
            if item is END:
                yield batch
                return
            batch.append(item)
        yield batch


async def events(queue: asyncio.Queue) -> None:
    for number in range(9):
        if number >= 5:
            await asyncio.sleep(0.035)
        await queue.put(number)
    await queue.put(END)


async def main() -> None:
    queue = asyncio.Queue(64)
    sending = asyncio.create_task(events(queue))
    async for batch in batches(queue, 4, 0.05):
        print("batch", batch)
    await sending


asyncio.run(main())

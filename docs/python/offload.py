"""offload: blocking work on threads, two at a time; what happens to it when its caller gives up."""

import asyncio
import threading

wanted, ended = threading.Event(), threading.Event()


def slow_query() -> None:
    # Nothing tells it that nobody waits any more: a flag of one's own would have to be handed in.
    wanted.wait()
    ended.set()


async def main() -> None:
    limit = asyncio.Semaphore(2)

    async def run(work):
        async with limit:
            return await asyncio.to_thread(work)

    print("sizes", await asyncio.gather(*(run(lambda text=text: len(text)) for text in ["a", "bc", "def"])))

    query = asyncio.create_task(run(slow_query))
    await asyncio.sleep(0.01)
    query.cancel()
    await asyncio.gather(query, return_exceptions=True)
    # The place was given back with the await, not with the thread: two more may start beside the one that still runs.
    print("cancelled:", query.cancelled(), "| the thread has ended:", ended.is_set(), "| free:", limit._value)
    wanted.set()  # without this, asyncio.run would wait for the thread for ever


asyncio.run(main())
print("after asyncio.run the thread has ended:", ended.is_set())

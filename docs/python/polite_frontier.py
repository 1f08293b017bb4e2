"""polite_frontier: one queue with a gate per host in the worker, and a heap of hosts instead."""

import asyncio
import heapq
from collections import deque

DELAY = 0.01
PAGES = [("large", number) for number in range(20)] + [("small", number) for number in range(3)]


async def gates() -> list[str]:
    """What one writes first: workers take the next page, and wait until its host may be visited."""
    queue: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    for page in PAGES:
        queue.put_nowait(page)
    turns = {"large": asyncio.Lock(), "small": asyncio.Lock()}
    order = []

    async def worker() -> None:
        while True:
            host, _ = await queue.get()
            async with turns[host]:  # all four workers wait here for the large host
                order.append(host)
                await asyncio.sleep(DELAY)
            queue.task_done()  # forgotten once, for a page that failed, join() never returns

    workers = [asyncio.create_task(worker()) for _ in range(4)]
    await queue.join()
    for task in workers:
        task.cancel()
    return order


async def frontier() -> list[str]:
    """A queue per host, and the hosts in a heap by the time at which they may be visited."""
    queues: dict[str, deque[int]] = {}
    for host, number in PAGES:
        queues.setdefault(host, deque()).append(number)
    loop, order = asyncio.get_running_loop(), []
    due = [(loop.time(), host) for host in queues]
    while due:
        at, host = heapq.heappop(due)
        await asyncio.sleep(at - loop.time())
        order.append(host)
        queues[host].popleft()
        if queues[host]:
            heapq.heappush(due, (at + DELAY, host))
    return order


async def main() -> None:
    for crawl in (gates, frontier):
        order = await crawl()
        before = order[: order.index("small")].count("large")
        print(f"{crawl.__name__}: {before} visits to the large host before the first to the small one")


asyncio.run(main())

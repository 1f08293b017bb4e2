"""worker_pool: jobs that lead to jobs, and a list of those that failed twice."""

import asyncio

TREE = {"root": ["a", "b"], "a": ["a1", "a2"], "b": ["gone"], "a1": [], "a2": []}


async def read(directory: str) -> list[str]:
    await asyncio.sleep(0.01)
    return TREE[directory]


async def work(queue: asyncio.Queue[tuple[str, int]], dead: list[str]) -> None:
    while True:
        directory, tries = await queue.get()
        try:
            for child in await read(directory):
                queue.put_nowait((child, 0))  # with a bound, `await queue.put` would deadlock here
            print("read", directory)
        except KeyError:
            if tries + 1 < 2:
                queue.put_nowait((directory, tries + 1))
            else:
                dead.append(directory)
        finally:
            queue.task_done()


async def main() -> None:
    queue: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    dead: list[str] = []
    workers = [asyncio.create_task(work(queue, dead)) for _ in range(3)]
    queue.put_nowait(("root", 0))
    await queue.join()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    print("given up:", dead)


asyncio.run(main())

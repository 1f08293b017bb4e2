"""fetch_all: an outcome for each URL, three at a time, by a deadline."""

import asyncio


async def fetch(url: str, limit: asyncio.Semaphore) -> int:
    async with limit:
        if url == "/bad":
            raise ValueError("status 503")
        await asyncio.sleep(60 if url == "/slow" else 0.01)
        return len(url)


async def main() -> None:
    limit = asyncio.Semaphore(3)
    urls = ["/a", "/bad", "/slow", "/bcd"]
    tasks = {url: asyncio.create_task(fetch(url, limit)) for url in urls}
    # `asyncio.timeout` around `gather` would cancel all of them and keep nothing of what had ended.
    _, pending = await asyncio.wait(tasks.values(), timeout=0.2)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for url, task in tasks.items():
        if task.cancelled():
            print(url, "cut off, or never started: nobody knows")
        else:
            print(url, task.exception() or task.result())


asyncio.run(main())

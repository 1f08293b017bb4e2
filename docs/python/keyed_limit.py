"""keyed_limit: one at a time for each host, two in all; what aiohttp's limit_per_host does, by hand."""

import asyncio
from contextlib import asynccontextmanager


class KeyedLimit:
    def __init__(self, per_key: int, overall: int) -> None:
        self.per_key, self.overall = per_key, asyncio.Semaphore(overall)
        self.keys: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def hold(self, key: str):
        permits, users = self.keys.get(key) or (asyncio.Semaphore(self.per_key), 0)
        self.keys[key] = permits, users + 1
        try:
            # The key first: whoever waits for its key must not occupy a place of all.
            async with permits, self.overall:
                yield
        finally:
            permits, users = self.keys.pop(key)
            if users > 1:  # without this the dictionary keeps every host for ever
                self.keys[key] = permits, users - 1


async def main() -> None:
    limit, begun = KeyedLimit(per_key=1, overall=2), []

    async def fetch(host: str) -> None:
        async with limit.hold(host):
            begun.append(host)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(fetch(host) for host in "aaaab"))
    print("begun", "".join(begun))
    print("keys left", len(limit.keys))


asyncio.run(main())

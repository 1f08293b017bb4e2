"""batch_loader: one call at a time, and what is asked for meanwhile goes into the next one."""

import asyncio


class Loader:
    def __init__(self, work, keys: int) -> None:
        self.work, self.keys, self.waiting, self.running = work, keys, {}, None

    async def load(self, key):
        future = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(key, []).append(future)
        if self.running is None:
            # Kept, because the event loop holds tasks weakly.
            self.running = asyncio.create_task(self.run())
        return await future

    async def run(self) -> None:
        while self.waiting:
            keys = list(self.waiting)[: self.keys]
            callers = [(key, future) for key in keys for future in self.waiting.pop(key)]
            try:
                found = await self.work(keys)
            except Exception as error:
                for _, future in callers:
                    if not future.done():
                        future.set_exception(error)
                continue
            for key, future in callers:
                if not future.done():
                    future.set_result(found.get(key))
        self.running = None


async def ask(ids: list[int]) -> dict[int, str]:
    print("request for users", ids)
    await asyncio.sleep(0.02)
    return {id: f"user {id}" for id in ids}


async def main() -> None:
    loader = Loader(ask, 4)

    async def caller(number: int) -> None:
        await asyncio.sleep(0.005 * (number > 0))
        try:
            await asyncio.wait_for(loader.load(number // 2), 0.01 if number == 5 else 1)
        except asyncio.TimeoutError:
            print("caller", number, "gave up")

    await asyncio.gather(*(caller(number) for number in range(6)))
    gone = asyncio.create_task(loader.load(9))
    await asyncio.sleep(0.005)
    gone.cancel()
    await asyncio.sleep(0)
    print("nobody waits, the request runs on:", loader.running is not None)


asyncio.run(main())

"""adaptive_limit: additive increase, multiplicative decrease, in steps of a simulated server's rounds."""

import asyncio


class AdaptiveLimit:
    def __init__(self) -> None:
        self.limit, self.running, self.cuts = 1.0, 0, 0
        self.changed = asyncio.Condition()

    async def run(self, work):
        async with self.changed:
            await self.changed.wait_for(lambda: self.running < int(self.limit))
            self.running, cuts = self.running + 1, self.cuts
        try:
            overloaded = await work()
            # Not reached when the call is cancelled: that must count neither way.
            if cuts == self.cuts:
                if overloaded:
                    self.limit, self.cuts = max(self.limit * 0.9, 1.0), self.cuts + 1
                elif self.running * 2 >= int(self.limit):
                    self.limit += 1 / self.limit
        finally:
            self.running -= 1
            async with self.changed:
                self.changed.notify_all()


async def main() -> None:
    limit, capacity = AdaptiveLimit(), 8

    async def call() -> bool:
        await asyncio.sleep(0)
        return limit.running > capacity

    async def client() -> None:
        for _ in range(100):
            await limit.run(call)

    await asyncio.gather(*(client() for _ in range(12)))
    print("the capacity is 8, the limit found is", int(limit.limit))


asyncio.run(main())

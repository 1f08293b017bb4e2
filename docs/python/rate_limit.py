"""rate_limit: a token bucket by hand, first come, first served."""

import asyncio
import time


class RateLimit:
    def __init__(self, tokens: int, per: float, burst: int) -> None:
        self.rate, self.burst = tokens / per, burst
        self.level, self.at = float(burst), time.monotonic()
        self.turn = asyncio.Lock()

    async def acquire(self, tokens: int) -> None:
        if tokens > self.burst:
            raise ValueError(f"{tokens} tokens cannot be granted at once: the burst is {self.burst}")
        async with self.turn:
            while True:
                now = time.monotonic()
                self.level = min(self.burst, self.level + (now - self.at) * self.rate)
                self.at = now
                if self.level >= tokens:
                    self.level -= tokens
                    return
                await asyncio.sleep((tokens - self.level) / self.rate)


async def main() -> None:
    limit, order = RateLimit(tokens=100, per=1.0, burst=4), []

    async def call(number: int, tokens: int) -> None:
        await limit.acquire(tokens)
        order.append(number)

    start = time.monotonic()
    await asyncio.gather(call(1, 1), call(2, 4), call(3, 1), call(4, 2))
    print("order:", order, "and it took at least 40 ms:", time.monotonic() - start >= 0.04)
    try:
        await limit.acquire(5)
    except ValueError as error:
        print(error)


asyncio.run(main())

"""circuit_breaker: closed, open, half open, by hand."""

import asyncio


class Breaker:
    def __init__(self, failures: int, pause: float) -> None:
        self.most, self.pause = failures, pause
        self.failures, self.until, self.probing = 0, None, False

    async def call(self, work):
        loop = asyncio.get_running_loop()
        if self.until is not None and (loop.time() < self.until or self.probing):
            raise RuntimeError("rejected")
        self.probing = probe = self.until is not None
        try:
            result = await work()
        except Exception:  # a cancellation is no Exception
            self.failures += 1
            if probe or self.failures >= self.most:
                self.until = loop.time() + self.pause
            raise
        finally:  # without it, a cancelled probe keeps its slot
            if probe:
                self.probing = False
        self.failures, self.until = 0, None
        return result


async def main() -> None:
    breaker, down = Breaker(failures=2, pause=0.05), True

    async def work() -> str:
        if down:
            raise ConnectionError("down")
        return "ok"

    for step in range(6):
        if step == 4:
            down = False
            await asyncio.sleep(0.06)
        try:
            print(step, await breaker.call(work))
        except (ConnectionError, RuntimeError) as error:
            print(step, error)


asyncio.run(main())

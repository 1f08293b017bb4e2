"""barrier: three tasks in rounds. One gives up and comes again."""

import asyncio


async def main() -> None:
    barrier = asyncio.Barrier(3)
    lines = []

    async def patient() -> None:
        for _ in range(2):
            lines.append(await barrier.wait() == 0)  # the first to go on is number 0

    async def impatient() -> None:
        for _ in range(2):
            while True:
                try:
                    await asyncio.wait_for(barrier.wait(), 0.01)
                    break
                except TimeoutError:
                    pass  # its place is free again

    async def late() -> None:
        await asyncio.sleep(0.035)
        for _ in range(2):
            await barrier.wait()

    await asyncio.gather(patient(), impatient(), late())
    print("rounds:", len(lines), "waiting:", barrier.n_waiting, "broken:", barrier.broken)


asyncio.run(main())

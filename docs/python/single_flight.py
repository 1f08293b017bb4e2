"""single_flight: a dictionary of tasks, and a count of who waits for each."""

import asyncio


class SingleFlight:
    def __init__(self) -> None:
        self.flights: dict[str, list] = {}

    async def run(self, key, work):
        flight = self.flights.get(key)
        if flight is None:
            flight = self.flights[key] = [asyncio.create_task(work()), 0]
            flight[0].add_done_callback(lambda _: self.leave(key, flight))
        flight[1] += 1
        try:
            # Without shield the first caller that is cancelled cancels the work of all.
            return await asyncio.shield(flight[0])
        finally:
            flight[1] -= 1
            if flight[1] == 0:  # without this the work runs on for nobody
                flight[0].cancel()
                self.leave(key, flight)

    def leave(self, key, flight) -> None:
        if self.flights.get(key) is flight:
            del self.flights[key]


async def main() -> None:
    flights, begun = SingleFlight(), 0

    async def page() -> str:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0.05)
        return "page 7"

    async def impatient() -> None:
        try:
            async with asyncio.timeout(0.01):
                await flights.run(7, page)
        except TimeoutError:
            print("the first has left")

    first = asyncio.create_task(impatient())
    await asyncio.sleep(0)
    pages = await asyncio.gather(*(flights.run(7, page) for _ in range(999)))
    await first
    print(len(pages), "answers,", begun, "request")
    print("in flight", len(flights.flights))


asyncio.run(main())

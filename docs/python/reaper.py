"""reaper: `__del__` cannot await; it makes a task, which nobody waits for unless it is held."""

import asyncio


class Session:
    def __init__(self, number: int, goodbyes: set[asyncio.Task]) -> None:
        self.number, self.goodbyes = number, goodbyes

    async def goodbye(number: int) -> None:
        await asyncio.sleep(0.01)
        print("session", number, "has said goodbye")

    def __del__(self) -> None:
        # The event loop holds tasks weakly: without the set this one may be collected before it has run.
        task = asyncio.get_running_loop().create_task(Session.goodbye(self.number))
        self.goodbyes.add(task)
        task.add_done_callback(self.goodbyes.discard)


async def main() -> None:
    goodbyes: set[asyncio.Task] = set()
    for number in (1, 2):
        session = Session(number, goodbyes)
    del session
    # Without this `asyncio.run` cancels them. `wait` has no limit for each, only one for all.
    _, late = await asyncio.wait(goodbyes, timeout=1)
    print(len(late), "goodbyes are late")


asyncio.run(main())

"""actor: a task that owns the state, a queue of requests, and a future for each reply."""

import asyncio


class Account:
    def __init__(self, room: int) -> None:
        self.requests: asyncio.Queue = asyncio.Queue(room)
        self.balance = 0
        self.task = asyncio.create_task(self.work())

    async def work(self) -> None:
        while True:
            amount, reply = await self.requests.get()
            if not reply.cancelled():
                await asyncio.sleep(0.01)  # the ledger
                self.balance += amount
                # The caller may have left meanwhile; without this look set_result raises and the actor dies.
                if not reply.cancelled():
                    reply.set_result(self.balance)
            self.requests.task_done()

    async def book(self, amount: int) -> int:
        reply = asyncio.get_running_loop().create_future()
        await self.requests.put((amount, reply))
        return await reply

    async def stop(self) -> int:
        await self.requests.join()
        self.task.cancel()
        return self.balance


async def main() -> None:
    account = Account(room=4)
    print(await asyncio.gather(*(account.book(amount) for amount in (100, -30, 20))))
    try:
        async with asyncio.timeout(0.005):
            await account.book(10)
    except TimeoutError:
        print("left in the middle of a booking")
    print("balance", await account.stop())

    # Nobody reads the queue any more, and nobody says so: the next caller waits for ever.
    try:
        async with asyncio.timeout(0.05):
            await account.book(1)
    except TimeoutError:
        print("no reply after the end")


asyncio.run(main())

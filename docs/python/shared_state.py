"""shared_state: the same counters in asyncio, and what a cancelled change leaves behind."""

import asyncio

ledger = {"from": 10, "to": 0}
lock = asyncio.Lock()


async def move(amount: int) -> None:
    async with lock:
        ledger["from"] -= amount
        await asyncio.sleep(0.01)  # a request
        ledger["to"] += amount


async def main() -> None:
    count = 0

    async def add() -> None:
        nonlocal count
        for _ in range(100):
            count += 1  # one thread, and no await between the read and the write: no lock is needed

    await asyncio.gather(*(add() for _ in range(64)))
    print("counted", count)

    await move(3)
    print("moved:", ledger)
    try:
        await asyncio.wait_for(move(3), 0.005)
    except TimeoutError:
        # The lock is free again, and the ledger is half changed.
        print("cancelled:", ledger, "locked" if lock.locked() else "unlocked")


asyncio.run(main())

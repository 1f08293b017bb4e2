"""condition: wait until an account holds enough, and withdraw in the same step."""

import asyncio


async def main() -> None:
    balance, changed = 30, asyncio.Condition()

    async def withdraw(amount: int) -> str:
        nonlocal balance
        async with changed:
            await changed.wait_for(lambda: balance >= amount)
            balance -= amount
        return f"withdrew {amount}"

    async def deposit(amount: int, tell: bool) -> None:
        nonlocal balance
        async with changed:
            balance += amount
            if tell:
                changed.notify_all()

    waiting = asyncio.create_task(withdraw(100))
    await deposit(90, tell=True)
    print(await waiting, "and", balance, "are left")

    waiting = asyncio.create_task(withdraw(100))
    await asyncio.sleep(0)
    await deposit(90, tell=False)  # whoever changes the balance must remember to tell
    try:
        print(await asyncio.wait_for(waiting, 0.01))
    except TimeoutError:
        print("there are", balance, "and the withdrawal still waits")


asyncio.run(main())

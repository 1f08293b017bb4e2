"""shield: the section goes on when its caller is cancelled, but nobody waits for it, and nobody hears how it ended."""

import asyncio


async def save(page: str, log: list[str]) -> None:
    for step in ["written", "renamed", "indexed"]:
        await asyncio.sleep(0.01)
        log.append(f"{page} {step}")


async def caller(page: str, log: list[str]) -> None:
    await asyncio.shield(save(page, log))


async def give_up(log: list[str]) -> None:
    task = asyncio.create_task(caller("home", log))
    await asyncio.sleep(0.015)
    task.cancel()
    await asyncio.wait([task])
    log.append("given up")


async def patient(log: list[str]) -> None:
    await give_up(log)
    await asyncio.sleep(0.1)


lines: list[str] = []
asyncio.run(patient(lines))
print("the program goes on:", lines)

lines = []
asyncio.run(give_up(lines))  # its end cancels what is left, shielded or not
print("the program ends:", lines)

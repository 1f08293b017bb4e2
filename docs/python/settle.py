"""settle: one outcome for each input, in order, whatever happens to the others."""

import asyncio


async def check(host: str) -> str:
    await asyncio.sleep(0.01)
    if host == "b":
        raise ConnectionError("refused")
    if host == "c":
        await asyncio.Event().wait()  # cancelled by main
    return f"{host} answers"


async def main() -> None:
    tasks = [asyncio.ensure_future(check(host)) for host in "abcd"]
    asyncio.get_running_loop().call_later(0.02, tasks[2].cancel)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for host, outcome in zip("abcd", outcomes):
        print(host, repr(outcome))
    # Values and exceptions share one list: forgetting this test is the usual mistake.
    print("failed:", sum(isinstance(outcome, BaseException) for outcome in outcomes))


asyncio.run(main())

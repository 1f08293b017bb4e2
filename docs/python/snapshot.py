"""snapshot: a configuration that is replaced while requests read it."""

import asyncio
from types import SimpleNamespace


async def main() -> None:
    config = SimpleNamespace(host="a.example", port=1)

    async def request(number: int) -> str:
        mine = config  # one version for the whole request: assignment replaces the name, not the object
        await asyncio.sleep(0.01 * number)
        return f"{mine.host}:{mine.port}"

    async def careless(number: int) -> str:
        host = config.host
        await asyncio.sleep(0.01 * number)
        return f"{host}:{config.port}"  # the port of another version

    before = [asyncio.create_task(request(1)), asyncio.create_task(careless(1))]
    await asyncio.sleep(0)
    config = SimpleNamespace(host="b.example", port=2)
    after = [asyncio.create_task(request(2)), asyncio.create_task(careless(2))]
    print("before:", await asyncio.gather(*before))
    print("after: ", await asyncio.gather(*after))


asyncio.run(main())

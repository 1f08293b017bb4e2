"""row_loader: each row once for a request, and what is asked for at the same time by one query."""

import asyncio
import sqlite3

database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT)")
database.executemany("INSERT INTO authors VALUES (?, ?)", [(id, f"Author {id}") for id in range(10)])


class Shared:
    def __init__(self) -> None:
        self.waiting = {}

    async def load(self, key):
        future = asyncio.get_running_loop().create_future()
        if not self.waiting:
            asyncio.get_running_loop().call_later(0.01, self.ask)
        self.waiting.setdefault(key, []).append(future)
        return await future

    def ask(self) -> None:
        keys, callers, self.waiting = list(self.waiting), self.waiting, {}
        print("query for", keys)
        sql = f"SELECT id, name FROM authors WHERE id IN ({', '.join('?' * len(keys))})"
        found = dict(database.execute(sql, keys))
        for key, futures in callers.items():
            for future in futures:
                if not future.done():
                    future.set_result(found.get(key))


class Request:
    def __init__(self, shared: Shared) -> None:
        self.shared, self.rows = shared, {}

    async def load(self, key):
        if key not in self.rows:
            self.rows[key] = asyncio.create_task(self.shared.load(key))
        return await self.rows[key]


async def main() -> None:
    shared = Shared()
    one, other = Request(shared), Request(shared)
    print(await asyncio.gather(one.load(3), one.load(3), one.load(12), other.load(4)))
    print(await one.load(3))

    impatient, patient = asyncio.create_task(one.load(5)), asyncio.create_task(one.load(5))
    await asyncio.sleep(0)
    impatient.cancel()
    answer = await asyncio.gather(patient, return_exceptions=True)
    print("one gave up, the other gets", answer)


asyncio.run(main())

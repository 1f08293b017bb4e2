"""keyed_mutex: one order at a time for each user, with a lock per key that is forgotten with its last user."""

import asyncio
from contextlib import asynccontextmanager


class KeyedLock:
    def __init__(self) -> None:
        self.keys: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: str):
        lock, users = self.keys.get(key) or (asyncio.Lock(), 0)
        self.keys[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self.keys.pop(key)
            if users > 1:  # without this the dictionary keeps every user for ever
                self.keys[key] = lock, users - 1


async def main() -> None:
    users, sent = KeyedLock(), []

    async def order(user: str, number: int) -> None:
        async with users.hold(user):
            await asyncio.sleep(0.01)
            sent.append((user, number))

    await asyncio.gather(*(order(user, number) for number, user in enumerate(["anna", "ben", "anna"])))
    print("sent", sent)

    try:
        async with asyncio.timeout(0.01):
            async with users.hold("anna"):
                async with users.hold("anna"):  # a lock is not re-entrant here either
                    pass
    except TimeoutError:
        print("waited for itself")
    print("keys left", len(users.keys))


asyncio.run(main())

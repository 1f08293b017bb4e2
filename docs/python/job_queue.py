"""job_queue: a job table in sqlite3, from which two workers take with a lease."""

import asyncio
import sqlite3

LEASE = 0.05
database = sqlite3.connect(":memory:", isolation_level=None)
database.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, attempt INTEGER DEFAULT 0, due REAL DEFAULT 0)")
database.execute("INSERT INTO job DEFAULT VALUES")


def now() -> float:
    return asyncio.get_running_loop().time()


def claim():
    # sqlite3 has one writer at a time; in PostgreSQL: FOR UPDATE SKIP LOCKED.
    return database.execute(
        "UPDATE job SET attempt = attempt + 1, due = ? + ? WHERE id ="
        " (SELECT id FROM job WHERE due <= ? ORDER BY due LIMIT 1) RETURNING id, attempt",
        (now(), LEASE, now()),
    ).fetchone()


def finish(id: int, attempt: int) -> bool:
    return database.execute("DELETE FROM job WHERE id = ? AND attempt = ?", (id, attempt)).rowcount == 1


async def worker(name: str, begins: float, takes: float) -> None:
    await asyncio.sleep(begins)
    id, attempt = claim()
    print(f"{name}: job {id}, attempt {attempt}")
    await asyncio.sleep(takes)
    print(f"{name}: finished" if finish(id, attempt) else f"{name}: the job is somebody else's, and the work was done twice")


async def main() -> None:
    # Nothing extends the lease of the first one, and nothing aborts it when the lease is lost.
    await asyncio.gather(worker("slow", 0, 0.2), worker("quick", 0.1, 0.02))


asyncio.run(main())

"""row_stream: a result row by row, of which only the first rows are wanted."""

import asyncio
import sqlite3
import tempfile


async def row_stream(connection: sqlite3.Connection, sql: str):
    cursor = connection.execute(sql)
    try:
        while rows := await asyncio.to_thread(cursor.fetchmany, 50):
            for row in rows:
                yield row
    finally:
        cursor.close()


def write(connection: sqlite3.Connection) -> str:
    try:
        connection.execute("DELETE FROM readings WHERE id = 1")
        return "done"
    except sqlite3.OperationalError as error:
        return str(error)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/readings.db"
        reader, writer = (sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0) for _ in "ab")
        writer.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, value REAL)")
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO readings VALUES (?, ?)", [(id, id / 10) for id in range(1000)])
        writer.execute("COMMIT")

        rows = row_stream(reader, "SELECT id, value FROM readings")
        async for row in rows:
            print(row)
            if row[0] == 2:
                break
        print("after break, a writer says:", write(writer))
        await rows.aclose()
        print("after aclose, a writer says:", write(writer))
        reader.close()
        writer.close()


asyncio.run(main())

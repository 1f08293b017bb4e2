"""files: read many files on threads, four at a time, and replace one at one stroke."""

import asyncio
import os
import tempfile
from pathlib import Path


def replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # the new file has mode 0600, whatever the old one had
    except BaseException:
        os.unlink(temporary)
        raise


async def main() -> None:
    limit = asyncio.Semaphore(4)

    async def on_thread(work, *arguments):
        async with limit:
            return await asyncio.to_thread(work, *arguments)

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.txt") for number in range(10)]
        await asyncio.gather(*(on_thread(replace, path, path.name) for path in paths))
        texts = await asyncio.gather(*(on_thread(Path.read_text, path) for path in paths))
        print(sum(map(len, texts)), "characters in", len(os.listdir(folder)), "files")
        mode = oct(paths[0].stat().st_mode & 0o777)
        print("mode of a new file:", mode)


asyncio.run(main())

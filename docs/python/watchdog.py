"""watchdog: asyncio's debug mode names what took longer than slow_callback_duration."""

import asyncio
import logging
import time


class Reports(logging.Handler):
    def emit(self, record):
        message = record.getMessage()
        if "took" in message:
            print("reported, when it was over:", "name='thumbnail'" in message)


async def thumbnail() -> None:
    time.sleep(0.1)  # the mistake


async def main() -> None:
    asyncio.get_running_loop().slow_callback_duration = 0.05
    logger = logging.getLogger("asyncio")
    logger.addHandler(Reports())
    logger.propagate = False
    await asyncio.create_task(thumbnail(), name="thumbnail")


asyncio.run(main(), debug=True)

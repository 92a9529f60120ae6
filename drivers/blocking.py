"""Blocking calls, made from asyncio without ever being left behind.

A call that runs on a thread cannot be cancelled. When the task that awaits it is, the call is waited for first, since
what follows a cancellation is an undo, and an undo must not run beside the step that it undoes.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Params = ParamSpec("Params")
Result = TypeVar("Result")


class BlockingCalls:
    """Threads of its own for one driver, so that a neighbour that hangs holds up nobody else's calls."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, function: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs) -> Result:
        """The result of `function` called on a thread, with the caller's context variables.

        Raises:
            asyncio.CancelledError: the awaiting task was cancelled; by now the call has ended, or never began.
        """
        context = contextvars.copy_context()
        call = self._threads.submit(context.run, lambda: function(*args, **kwargs))
        try:
            return await asyncio.shield(asyncio.wrap_future(call))
        except asyncio.CancelledError:
            if not call.cancel():
                await _end_of(call)
            raise

    async def close(self) -> None:
        """Wait for the calls that run, then end the threads."""
        await asyncio.to_thread(self._threads.shutdown)


async def _end_of(call: Future[Result]) -> None:
    """Wait until `call` has ended, whatever its outcome and however often the waiting task is cancelled."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    call.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    while not ended.is_set():
        try:
            await ended.wait()
        except asyncio.CancelledError:
            continue  # told already: the caller raises it when the call has ended

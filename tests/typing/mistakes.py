"""Mistakes: both checkers must report each line that ends in `# E: <mypy> / <pyright>`, with these words.

`|` separates words of which one is enough. No other line may be reported.
"""

from __future__ import annotations

from good import State, add, app, fetch

from streamq import Context


async def wrong_argument_type() -> None:
    await add.enqueue(1, "2")  # E: arg-type / reportArgumentType


async def missing_argument() -> None:
    await add.enqueue(1)  # E: call-arg / reportCallIssue


async def unknown_argument() -> None:
    await add.enqueue(1, 2, z=3)  # E: call-arg / reportCallIssue


async def context_is_not_an_argument() -> None:
    await fetch.enqueue(1)  # E: arg-type / reportArgumentType


async def result_of_another_type() -> None:
    job = await add.enqueue(1, 2)
    text: str = await job.result()  # E: assignment / reportAssignmentType
    print(text)


async def unknown_task_option() -> None:
    app.task(colour="red")(wrong_argument_type)  # E: call-arg|call-overload / reportCallIssue


async def wrong_option_type() -> None:
    await add.using(queue=5).enqueue(1, 2)  # E: arg-type|call-overload / reportArgumentType


async def unknown_option() -> None:
    await add.using(colour="red").enqueue(1, 2)  # E: call-arg|call-overload / reportCallIssue


async def forgotten_await() -> None:
    print(add.enqueue(1, 2).id)  # E: attr-defined / reportAttributeAccessIssue


async def forgotten_await_of_a_statement() -> None:
    add.enqueue(1, 2)  # E: unused-coroutine / reportUnusedCoroutine


async def no_such_state(ctx: Context[State]) -> None:
    print(ctx.state.farewell)  # E: attr-defined / reportAttributeAccessIssue

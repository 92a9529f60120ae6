"""How errors are shown: one block that says what is wrong, where, and what to do; tables for the hosts' reasons."""

from collections.abc import Iterator, Sequence
from typing import NoReturn

import typer
from pydantic import ValidationError
from rich.console import RenderableType
from rich.text import Text

from hostler.cli.exits import Exit, exit_code
from hostler.cli.output import console, printable, table
from hostler.contract.errors import ErrorDetail, HostlerError

SECRET_TABLES = {("database",), ("encryption",), ("codec",)}
"""The tables of settings whose values are not shown: a mistyped secret is one, too."""


def report(error: Exception, *, debug: bool) -> Exit:
    """Show an error on standard error, and return the exit code that it means."""
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, HostlerError):
        show_detail(error.detail)
        return exit_code(error.detail.code)
    if isinstance(error, ValidationError):
        for problem in error.errors():
            setting = ".".join(map(str, problem["loc"]))
            value = None if problem["loc"][:1] in SECRET_TABLES else repr(problem["input"])[:80]
            show(problem["msg"], field=setting, value=value, remedy="correct the setting")
        return Exit.INVALID
    if isinstance(error, OSError):
        show(str(error))
        return Exit.INVALID
    show(f"{type(error).__name__}: {error}", remedy="this is a defect; with --debug it shows where")
    return Exit.UNEXPECTED


def fail(refused: Sequence[HostlerError], failed: Sequence[HostlerError], *, told: bool = False) -> NoReturn:
    """Show operations that were refused (unless that was `told`) and that failed; the first gives the exit code."""
    for error in (*([] if told else refused), *failed):
        show_detail(error.detail)
    code = refused[0].detail.code if refused else failed[0].detail.code
    raise typer.Exit(exit_code(code, accepted=not refused))


def show_detail(detail: ErrorDetail) -> None:
    """Show a Hostler error."""
    show(detail.message, detail.code, detail.field, detail.value, detail.remedy)
    for part in reasons(detail):
        console(stderr=True).print(part)


def show(
    message: str, code: str = "", field: str | None = None, value: str | None = None, remedy: str | None = None
) -> None:
    """Show an error's parts on standard error."""
    text = Text.assemble(("Error", "bold red"), f" ({code}): " if code else ": ", printable(message))
    for name, content in (("field", field), ("value", value), ("remedy", remedy)):
        if content is not None:
            text.append(f"\n  {name + ':':8}", style="bold")
            text.append(printable(content))
    console(stderr=True).print(text)


def reasons(detail: ErrorDetail) -> Iterator[RenderableType]:
    """Why the hosts did not do: what each that was tried said, and what each filter removed."""
    if detail.attempts:
        yield table(
            ["Attempt", "Host", "Step", "Reason"], [[a.attempt, a.host, a.step, a.reason] for a in detail.attempts]
        )
    if detail.filters:
        yield table(
            ["Filter", "Removed", "Hosts", "Reason"],
            [[f.filter, f.removed, ", ".join(f.hosts), f.reason] for f in detail.filters],
        )
    if detail.hosts_considered:
        yield Text(f"{detail.hosts_considered} hosts considered")

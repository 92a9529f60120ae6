"""`hostler audit`."""

from typing import Annotated

import typer

from hostler.cli.completion import names
from hostler.cli.exits import Exit
from hostler.cli.output import Columns, Format, FormatOption, column_option, note, show_list, show_one
from hostler.cli.session import session
from hostler.contract.audit import AuditReport, Finding
from hostler.contract.errors import InvalidRequest

app = typer.Typer(help="Compare what is with what should be.")

COLUMNS: Columns[Finding] = {
    "Kind": lambda f: f.kind,
    "Subject": lambda f: f.subject,
    "Server": lambda f: f.server,
    "Host": lambda f: f.host,
    "Found": lambda f: f.found,
    "Healed": lambda f: f.healed,
    "Because": lambda f: None if f.healed else f.reason,
    "Remedy": lambda f: None if f.healed else f.remedy,
}
FIELDS: Columns[Finding] = {
    **COLUMNS,
    "Expected": lambda f: f.expected,
    "Safe": lambda f: f.safe,
    "Server ID": lambda f: f.server_id,
    "Host ID": lambda f: f.host_id,
}
Picked = Annotated[list[str] | None, column_option(FIELDS)]


@app.command()
def audit(
    ctx: typer.Context,
    heal: Annotated[
        bool | None, typer.Option("--heal/--dry-run", help="Heal what is safe, or only look; else the setting decides.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Only this host, by name or UUID.", autocompletion=names("hosts"))
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="Show what the last scheduled audit found.")] = False,
    format: FormatOption = Format.TABLE,
    columns: Picked = None,
) -> None:
    """Compare what is with what should be, heal what is safe, and show the rest.

    Exits with 8 when something is found and not healed, with 7 when only a host could not be audited.
    """
    if last and (heal is not None or host is not None):
        raise InvalidRequest(
            "--last shows an audit that is over", field="last", remedy="leave --heal, --dry-run and --host out"
        )
    report = session(ctx).run(lambda client: client.audit.last() if last else client.audit(heal=heal, host=host))
    if format is Format.JSON and not columns:
        show_one(report, {}, format, None)
    else:
        show_list(report.findings, FIELDS if columns else COLUMNS, format, columns)
    _tell(report)
    raise typer.Exit(_exit(report))


def _exit(report: AuditReport) -> Exit:
    if report.unhealed:
        return Exit.FOUND
    return Exit.UNAVAILABLE if report.not_audited else Exit.DONE


def _tell(report: AuditReport) -> None:
    for one in report.not_audited:
        note(f"not audited: host {one.host}: {one.reason}")
    found = f"{report.healed + report.unhealed} found, {report.healed} healed"
    if report.more:
        found += f", {report.more} not listed"
    note(f"{report.finished_at:%Y-%m-%d %H:%M:%S}: {report.hosts} hosts audited, {found}")

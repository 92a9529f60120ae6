"""The runbooks do what they say: each page is followed, line by line, in a cloud to which its trouble has come."""

from pathlib import Path

import pytest

from tests.runbooks import scenarios
from tests.runbooks.pages import DIRECTORY, PAGES, Call, calls, commands, never_run

PARTS = ("How it shows", "Why", "What to do", "Never", "How to know that it is over")
REAL = {"disk-full", "leaked-thing"}
FOLLOWED = [pytest.param(page, id=page.stem, marks=[pytest.mark.real] * (page.stem in REAL)) for page in PAGES]


@pytest.mark.parametrize("page", FOLLOWED)
async def test_a_runbook_does_what_it_says(page: Path, tmp_path: Path) -> None:
    prepare = getattr(scenarios, page.stem.replace("-", "_"))
    async with prepare(tmp_path) as (site, variables):
        done = []
        for command in commands(page):
            code, output = await site.run(command.line, variables)
            done.append(f"$ {command.line}\n{output}")
            so_far = "\n".join(done)
            assert code == command.exit_code, f"it ended with {code}:\n{so_far}"
            missing = command.missing(output, variables)
            assert missing is None, f"it does not print {missing!r}:\n{so_far}"
        print("\n".join(done))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_has_its_parts(page: Path) -> None:
    headings = [line[3:] for line in page.read_text().splitlines() if line.startswith("## ")]
    assert headings == list(PARTS)
    assert any(commands(page)), "a page without a command helps nobody at 3 a.m."


def run_by_the_pages() -> set[Call]:
    """Every command that some page's test runs."""
    return {call for page in PAGES for command in commands(page) for call in calls(command.line)}


@pytest.mark.parametrize("page", [*PAGES, DIRECTORY / "README.md"], ids=lambda page: page.stem)
def test_a_command_that_the_text_names_is_run_by_a_page(page: Path) -> None:
    assert list(never_run(page.read_text(), run_by_the_pages())) == []


@pytest.mark.parametrize(
    "span",
    [
        "hostler host frobnicate",
        "hostler host frobnicate HOST",
        "hostler host list --frobnicate",
        "--frobnicate",
        "virsh frobnicate hostler-<uuid>",
        "ssh HOST systemctl frobnicate hostler-host",
        "hostler host list | psql frobnicate",
    ],
)
def test_a_command_that_no_page_runs_is_noticed(span: str) -> None:
    text = f"Some say `{span}`, others `hostler host list -f value`."
    assert list(never_run(text, run_by_the_pages())) == [span]


def test_every_runbook_is_listed() -> None:
    listed = (DIRECTORY / "README.md").read_text()
    assert all(f"({page.name})" in listed for page in PAGES)


def test_every_alert_leads_to_a_runbook() -> None:
    rules = (DIRECTORY.parent / "observability" / "alerts.yaml").read_text()
    named = [line.split()[-1] for line in rules.splitlines() if line.strip().startswith("runbook:")]
    assert named
    assert {DIRECTORY / Path(name).name for name in named} <= set(PAGES)

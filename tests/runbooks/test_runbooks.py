"""The runbooks do what they say: each page is followed, line by line, in a cloud to which its trouble has come."""

from pathlib import Path

import pytest

from tests.runbooks import scenarios
from tests.runbooks.pages import DIRECTORY, PAGES, commands

PARTS = ("How it shows", "Why", "What to do", "Never", "How to know that it is over")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
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


def test_every_runbook_is_listed() -> None:
    listed = (DIRECTORY / "README.md").read_text()
    assert all(f"({page.name})" in listed for page in PAGES)


def test_every_alert_leads_to_a_runbook() -> None:
    rules = (DIRECTORY.parent / "observability" / "alerts.yaml").read_text()
    named = [line.split()[-1] for line in rules.splitlines() if line.strip().startswith("runbook:")]
    assert named
    assert {DIRECTORY / Path(name).name for name in named} <= set(PAGES)

"""The pages of deploy/runbooks, and the commands in them.

In a block of ```console a line that begins with `$ ` is a command, which a backslash continues; `# exit code N` at its
end says that it does not end with 0. The lines below it are what it prints, as far as they matter: they must be there
in this order, `…` stands for anything, blanks do not count, and variables are replaced.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

DIRECTORY = Path(__file__).parents[2] / "deploy" / "runbooks"
PAGES = sorted(page for page in DIRECTORY.glob("*.md") if page.name != "README.md")

BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"\s+# exit code (\d+)$")


@dataclass
class Command:
    """One command of a page."""

    line: str
    exit_code: int = 0
    prints: list[str] = field(default_factory=list)

    def missing(self, output: str, variables: dict[str, str]) -> str | None:
        """The first line that the page promises and that is not in the output after the ones before it."""
        lines = iter(output.splitlines())
        for promised in self.prints:
            wanted = _pattern(Template(promised).safe_substitute(variables))
            if not any(wanted.fullmatch(" ".join(line.split())) for line in lines):
                return promised
        return None


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page, in order."""
    for block in BLOCK.findall(page.read_text()):
        command: Command | None = None
        for line in block.replace("\\\n", "").splitlines():
            if line.startswith("$ "):
                if command is not None:
                    yield command
                code = EXIT_CODE.search(line)
                command = Command(EXIT_CODE.sub("", line[2:]), int(code[1]) if code else 0)
            elif line.strip():
                assert command is not None, f"{page.name}: output without a command: {line}"
                command.prints.append(line)
        if command is not None:
            yield command


def _pattern(promised: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in " ".join(promised.split()).split("…"))
    return re.compile(".*".join(parts))

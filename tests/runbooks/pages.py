"""The pages of deploy/runbooks, and the commands in them.

In a block of ```console a line that begins with `$ ` is a command, which a backslash continues; `# exit code N` at its
end says that it does not end with 0. The lines below it are what it prints, as far as they matter: they must be there
in this order, `…` stands for anything, blanks do not count, and variables are replaced.

What a span of `code` in the text names may be a command as well. It has to be run in a block, of whichever page: the
same program and subcommand, with the same options.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from string import Template

DIRECTORY = Path(__file__).parents[2] / "deploy" / "runbooks"
PAGES = sorted(page for page in DIRECTORY.glob("*.md") if page.name != "README.md")

BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"\s+# exit code (\d+)$")
SPAN = re.compile(r"`([^`]+)`")
BETWEEN = re.compile(r"[|;&()\"']|\b(?:do|until|while)\b")
"""What separates commands in a line of shell, as far as the pages use it."""
ELSEWHERE = re.compile(r"^ssh \S+")
WORD = re.compile(r"[a-z][a-z0-9_-]*")
PROGRAMS = {"hostler", "temporal", "virsh", "qemu-img", "psql", "systemctl", "journalctl", "pip", "make", "ip", "kill"}
"""What is a command whether or not a page runs it."""


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


@dataclass(frozen=True)
class Call:
    """What is called, whatever with: the program with its subcommand, and the names of options."""

    words: tuple[str, ...]
    options: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Call":
        """The one in a text of one command."""
        parts = text.split()
        words = tuple(takewhile(WORD.fullmatch, parts))
        return cls(words, frozenset(part.split("=")[0] for part in parts if part.startswith("-")))

    def is_in(self, other: "Call") -> bool:
        """Whether the other is the same, and may say more."""
        return other.words[: len(self.words)] == self.words and self.options <= other.options


def calls(line: str) -> Iterator[Call]:
    """What a line of shell calls, on whichever machine."""
    for part in BETWEEN.split(line):
        call = Call.of(ELSEWHERE.sub("", part.strip()))
        if call.words:
            yield call


def never_run(text: str, run: Collection[Call]) -> Iterator[str]:
    """The spans of a page's text that name a command, or an option of one, which is not among those that are run."""
    programs = PROGRAMS | {call.words[0] for call in run}
    for span in SPAN.findall(BLOCK.sub("", text)):
        first, *others = ELSEWHERE.sub("", span).split() or [""]
        if first in programs and others:
            named = list(calls(span))
        elif first.startswith("-"):
            named = [Call.of(span)]
        else:
            continue
        if not all(any(call.is_in(one) for one in run) for call in named):
            yield span


def _pattern(promised: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in " ".join(promised.split()).split("…"))
    return re.compile(".*".join(parts))

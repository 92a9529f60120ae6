"""`make bench`: measures what Hostler claims, each beside its baseline in the same run, and writes the JSON.

Run it on a machine that does nothing else. Name parts to run only these: `make bench ARGS="boots guest"`.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from deploy.bench import boots, guest, live, liveness, memory, moves, scheduling  # noqa: E402 - run as a script, from anywhere
from deploy.environment import forget_other_clouds  # noqa: E402 - likewise

PARTS: dict[str, Callable[[], Mapping[str, object]]] = {
    "boots": boots.run,
    "guest": guest.run,
    "scheduling": scheduling.run,
    "memory": memory.run,
    "liveness": liveness.run,
    "moves": moves.run,
    "live": live.run,
}
AS_ROOT = ("guest", "memory", "live")
"""Those on real hosts, which make bridges."""
# What the figures shall be: the path to one, its limit, and whether it is a least or a most.
TARGETS = {
    "boots.throughput.ratio": (0.7, "least"),
    "boots.latency.ratio_p50": (1.5, "most"),
    "boots.latency.ratio_p95": (1.5, "most"),
    "guest.more_ms": (300, "most"),
    "scheduling.one_by_one.schedule_ms.p95": (20, "most"),
    "scheduling.at_once.overcommitted_hosts": (0, "most"),
    "scheduling.at_once.refused": (0, "most"),
    "moves.drain.left": (0, "most"),
    "moves.evacuate.left": (0, "most"),
    "live.total.ratio": (1.3, "most"),
    "live.downtime.more_ms": (50, "most"),
}
OUTPUT = ROOT / ".cache" / "bench.json"


def main() -> int:
    """Run the parts that the command line names, else all. 1 when a target was missed, 2 when they cannot be run."""
    wanted = sys.argv[1:] or list(PARTS)
    unknown = [part for part in wanted if part not in PARTS]
    console = Console()
    if unknown:
        console.print(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
        return 2
    if os.geteuid() != 0 and (refused := [part for part in AS_ROOT if part in wanted]):
        console.print(f"{', '.join(refused)}: for real hosts one must be root: sudo make bench")
        return 2
    forget_other_clouds()
    results: dict[str, object] = {}
    for part in wanted:
        console.print(f"measuring {part} ...")
        results[part] = PARTS[part]()
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(json.dumps(results, indent=2) + "\n")
    figures = flat(results)
    console.print(table(figures))
    console.print(f"written to {OUTPUT.relative_to(ROOT)}")
    return 1 if any(met(path, figures[path]) is False for path in figures) else 0


def flat(value: object, path: str = "") -> dict[str, object]:
    """Every figure by the path to it."""
    if not isinstance(value, Mapping):
        return {path: value}
    figures: dict[str, object] = {}
    for key, inner in value.items():
        figures |= flat(inner, f"{path}.{key}" if path else str(key))
    return figures


def met(path: str, figure: object) -> bool | None:
    """Whether a figure meets its target; None when it has none."""
    if path not in TARGETS or not isinstance(figure, int | float):
        return None
    limit, kind = TARGETS[path]
    return figure >= limit if kind == "least" else figure <= limit


def table(figures: Mapping[str, object]) -> Table:
    """All figures, those with a target with their verdict."""
    result = Table("figure", "value", "target", "")
    for path, figure in figures.items():
        limit, kind = TARGETS.get(path, ("", ""))
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[met(path, figure)]
        result.add_row(path, str(figure), f"at {kind} {limit}" if kind else "", verdict)
    return result


if __name__ == "__main__":
    sys.exit(main())

"""`holdfast doctor`: what this machine can do, tool by tool and fault by fault."""

import json
from dataclasses import asdict, dataclass

import click
from rich.table import Table
from rich.text import Text

from holdfast_chaos import tools
from holdfast_chaos.consoles import wide_console
from holdfast_chaos.faults import KINDS, Availability

MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One line: a tool or a fault, whether it can be used here, and how to get it if not."""

    name: str
    state: str
    detail: str
    advice: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> int:
    """Say what this machine can do: each tool with its version, each fault with what it needs.

    Ends 0 if `holdfast run` has what it needs, 1 if something for it is missing.

    \b
    Examples:
      holdfast doctor
      holdfast doctor --json | jq '.faults[] | select(.state != "supported")'
    """
    found_tools, found_faults = tool_findings(), fault_findings()
    if as_json:
        sections = {"tools": found_tools, "faults": found_faults}
        click.echo(json.dumps({name: [asdict(item) for item in items] for name, items in sections.items()}, indent=2))
    else:
        console = wide_console()
        console.print(_table("tools", found_tools), _table("faults", found_faults))
    needed = {status.spec.name for status in tools.status() if status.spec.for_runs}
    return int(any(item.state == MISSING and item.name in needed for item in found_tools))


def tool_findings() -> list[Finding]:
    """Every tool there is a use for."""
    return [_tool_finding(status) for status in tools.status()]


def _tool_finding(status: tools.ToolStatus) -> Finding:
    spec = status.spec
    if status.tool is not None:
        return Finding(spec.name, "found", f"{status.tool.version} at {status.tool.path}")
    advice = f"get it with: holdfast tools {spec.name}"
    return Finding(spec.name, MISSING, f"{spec.purpose}; wanted {spec.accepts}", "; ".join([*status.rejected, advice]))


def fault_findings() -> list[Finding]:
    """Every kind of fault there is."""
    found = []
    for kind, fault in sorted(KINDS.items()):
        support = fault.supported()
        usable = support.availability is Availability.SUPPORTED
        summary = (fault.__doc__ or "").partition("\n")[0]
        found.append(Finding(kind, support.availability.value, summary, "" if usable else support.why))
    return found


def _table(title: str, findings: list[Finding]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2), show_header=False)
    for item in findings:
        good = item.state in {"found", Availability.SUPPORTED.value}
        mark = Text("✓" if good else "✗", style="green" if good else "red")
        table.add_row(mark, item.name, item.state, "\n".join(filter(None, (item.detail, item.advice))))
    return table

"""External programs that runs and tests use: which, where they are, and how to get them."""

from holdfast_chaos.tools.folder import default_dir
from holdfast_chaos.tools.locate import find, status
from holdfast_chaos.tools.spec import Tool, ToolSpec, ToolStatus
from holdfast_chaos.tools.table import TOOLS

__all__ = ["TOOLS", "Tool", "ToolSpec", "ToolStatus", "default_dir", "find", "status"]

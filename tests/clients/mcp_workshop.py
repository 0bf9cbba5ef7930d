"""A real MCP server with side effects: each is a line in the file LEDGER.

Environment: PORT, LEDGER.
"""

import asyncio
import base64
import os

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import (
    BlobResourceContents,
    EmbeddedResource,
    ImageContent,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel

server = MCPServer("workshop")


def meta(ctx: Context) -> dict:
    found = ctx.request_context.meta or {}
    return found if isinstance(found, dict) else found.model_dump()


def note(line: str) -> None:
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(line + "\n")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def measure(thing: str) -> str:
    """Measures a thing."""
    return f"{thing}: 12 cm"


@server.tool()
async def forge(ctx: Context, thing: str, seconds: float = 0) -> str:
    """Forges a thing."""
    note(f"begin {thing} {meta(ctx).get('smithgate/idempotency_key')}")
    for step in range(3):
        await ctx.report_progress(step + 1, 3, f"heat {step + 1}")
        await asyncio.sleep(seconds / 3)
    note(f"end {thing}")
    return f"{thing} is forged"


@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def melt(ctx: Context, thing: str) -> str:
    """Melts a thing down."""
    note(f"melt {thing} {meta(ctx).get('smithgate/idempotency_key')}")
    return f"{thing} is molten"


class Size(BaseModel):
    width: int


@server.tool()
async def cut(ctx: Context, thing: str) -> str:
    """Cuts a thing to a size that it asks for."""
    answer = await ctx.elicit(message=f"How wide shall {thing} be?", schema=Size)
    if answer.action != "accept":
        return f"{thing} is left as it is"
    note(f"cut {thing} {answer.data.width}")
    return f"{thing} is {answer.data.width} wide"


# The smallest picture that programs show.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@server.tool(structured_output=False)
def paint(thing: str) -> list:
    """Paints a thing: a picture, and a report about it."""
    report = BlobResourceContents(
        uri=f"file:///out/{thing}.pdf",
        mime_type="application/pdf",
        blob=base64.b64encode(b"%PDF-1.4 a report").decode(),
    )
    return [
        TextContent(type="text", text=f"{thing} is painted"),
        ImageContent(type="image", data=PICTURE, mime_type="image/png"),
        EmbeddedResource(type="resource", resource=report),
    ]


@server.tool()
def sketch(thing: str) -> str:
    """Sketches a thing, as models that make pictures say them."""
    return f"![{thing}](data:image/png;base64,{PICTURE})"


@server.tool()
def break_down() -> str:
    """Always fails."""
    raise ValueError("the hammer broke")


app = server.streamable_http_app()
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")

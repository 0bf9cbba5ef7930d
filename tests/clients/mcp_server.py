"""A real MCP server of the `mcp` package, behind a bearer token.

Environment: PORT, TOKEN (empty: nobody is asked for one).
"""

import os

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

TOKEN = os.environ["TOKEN"]
server = MCPServer("desk")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def lookup_order(number: str) -> str:
    """Looks an order up."""
    return f"order {number}: shipped"


@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def delete_order(number: str) -> str:
    """Deletes an order."""
    return f"order {number}: gone"


@server.tool()
def refund(number: str, amount: float) -> str:
    """Pays money back."""
    return f"order {number}: {amount} paid back"


app = server.streamable_http_app()


async def guarded(scope, receive, send):
    headers = dict(scope.get("headers", []))
    if scope["type"] == "http" and TOKEN and headers.get(b"authorization") != f"Bearer {TOKEN}".encode():
        await send({"type": "http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Bearer")]})
        await send({"type": "http.response.body", "body": b""})
        return
    await app(scope, receive, send)


uvicorn.run(guarded, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")

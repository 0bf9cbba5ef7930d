"""The `mcp` package for Python, unmodified, as an MCP host of a smith.

Environment: URL (of the endpoint), SMITH_TOKEN, OTHER_TOKEN (of another smith), SLOW_URL (of an
endpoint whose smith answers slowly).
"""

import asyncio
import os

import httpx2 as httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

HELLO = 'Hello, "wörld" \n😀'


def headers(token):
    return {"Authorization": f"Bearer {token}"}


async def connected(url, token, work):
    async with httpx.AsyncClient(headers=headers(token), timeout=20) as client:
        async with streamable_http_client(url, http_client=client) as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                await session.initialize()
                return await work(session)


async def asks(session):
    tools = (await session.list_tools()).tools
    assert [tool.name for tool in tools] == ["ask"], tools
    assert set(tools[0].input_schema["properties"]) == {"message", "thread_id"}, tools
    first = await session.call_tool("ask", {"message": "hi"})
    assert not first.is_error and first.content[0].text == HELLO, first
    thread = first.structured_content["thread_id"]
    again = await session.call_tool("ask", {"message": "and?", "thread_id": thread})
    assert again.structured_content["thread_id"] == thread, again
    empty = await session.call_tool("ask", {"message": " "})
    assert empty.is_error and "message" in empty.content[0].text, empty
    for name, arguments in (("none", {}), ("ask", {}), ("ask", {"message": 7})):
        try:
            await session.call_tool(name, arguments)
            raise AssertionError((name, arguments))
        except Exception as error:
            assert "AssertionError" not in repr(error), error
    await session.send_ping()


async def progress(session):
    seen = []

    async def tell(done, total, message):
        seen.append(done)

    answer = await session.call_tool("ask", {"message": "hi"}, progress_callback=tell)
    assert answer.content[0].text == HELLO, answer
    assert seen and seen == sorted(seen), seen


async def main():
    await connected(os.environ["URL"], os.environ["SMITH_TOKEN"], asks)
    await connected(os.environ["SLOW_URL"], os.environ["SLOW_TOKEN"], progress)
    async with httpx.AsyncClient() as client:
        for token, status in (("", 401), (os.environ["OTHER_TOKEN"], 403)):
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            accept = {"Accept": "application/json, text/event-stream", **(headers(token) if token else {})}
            answer = await client.post(os.environ["URL"], json=ping, headers=accept)
            assert answer.status_code == status, answer.text
    print("mcp: all seen")


asyncio.run(main())

"""The `mcp` package for Python, unmodified, uses a smith's own tools and its agent's panels.

Environment: URL and SMITH_TOKEN (of a smith that has the tools of mcp_workshop.py and the
calculator), PANEL_URL and PANEL_TOKEN (of an agent with the panel `order`).
"""

import asyncio
import os

import httpx2 as httpx
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult

checks = 0


def check(holds, about):
    global checks
    assert holds, about
    checks += 1


async def use(mode, prefix, word, work):
    seen = []

    async def human(context, params):
        seen.append(params.message)
        return word

    headers = {"Authorization": f"Bearer {os.environ[prefix + 'TOKEN']}"}
    url = os.environ["URL" if prefix == "SMITH_" else "PANEL_URL"]
    async with httpx.AsyncClient(headers=headers, timeout=20) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=human if word else None) as client:
            await work(client, seen)


YES = ElicitResult(action="accept", content={"approve": True})
NO = ElicitResult(action="decline")


def text(answer):
    return answer.content[0].text


async def own(client, seen):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    check({"ask", "measure", "forge", "melt", "cut", "add"} <= set(tools), tools)
    check(tools["melt"].annotations.destructive_hint, tools["melt"])
    check(tools["measure"].annotations.read_only_hint, tools["measure"])
    check(tools["measure"].input_schema["required"] == ["thing"], tools["measure"])
    check(text(await client.call_tool("measure", {"thing": "rod"})) == "rod: 12 cm", "measure")
    check(seen == [], seen)
    steps = []

    async def tell(done, total, message):
        steps.append((done, total, message))

    forged = await client.call_tool("forge", {"thing": "hook", "seconds": 0.3}, progress_callback=tell)
    check(text(forged) == "hook is forged", forged)
    check(steps == [(1, 3, "heat 1"), (2, 3, "heat 2"), (3, 3, "heat 3")], steps)
    wrong = await client.call_tool("measure", {"thong": "rod"})
    check(wrong.is_error and "thing" in text(wrong), wrong)
    melted = await client.call_tool("melt", {"thing": "rod"})
    check(not melted.is_error and text(melted) == "rod is molten", melted)
    check(len(seen) == 1 and "melt" in seen[0] and "rod" in seen[0], seen)


async def refused(client, seen):
    answer = await client.call_tool("melt", {"thing": "gold"})
    check(answer.is_error and "allow" in text(answer), answer)


async def deaf(client, seen):
    answer = await client.call_tool("melt", {"thing": "gold"})
    check(answer.is_error and "cannot ask" in text(answer), answer)


async def cut(client, seen):
    answer = await client.call_tool("cut", {"thing": "rod"})
    check(text(answer) == "rod is 9 wide", answer)


async def panel(client, seen):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    check(set(tools) == {"ask", "order"}, "an agent's deployment shows no smith's tools")
    address = tools["order"].meta["ui"]["resourceUri"]
    check(tools["order"].input_schema["required"] == ["item"], tools["order"])
    [found] = (await client.list_resources()).resources
    check(found.uri == address and found.mime_type == "text/html;profile=mcp-app", found)
    [html] = (await client.read_resource(address)).contents
    check("<p>Order</p>" in html.text, html)
    check(html.meta["ui"]["csp"]["connectDomains"] == ["https://shop.test"], html)
    answer = await client.call_tool("order", {"item": "bolt"})
    check(not answer.is_error and "42" in text(answer), answer)
    check(len(seen) == 1 and "order" in seen[0], seen)
    wrong = await client.call_tool("order", {})
    check(wrong.is_error and "item" in text(wrong), wrong)
    try:
        await client.read_resource(address + "x")
        raise AssertionError("a panel that is not there")
    except Exception as error:
        check("no resource" in str(error), error)


async def main():
    for mode in ("legacy", "auto"):
        await use(mode, "SMITH_", YES, own)
        await use(mode, "SMITH_", NO, refused)
        await use(mode, "SMITH_", None, deaf)
        await use(mode, "PANEL_", YES, panel)
    await use("legacy", "SMITH_", ElicitResult(action="accept", content={"width": 9}), cut)
    print(f"mcp: {checks} checks of tools and panels")


asyncio.run(main())

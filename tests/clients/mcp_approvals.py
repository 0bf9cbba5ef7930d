"""The `mcp` package for Python, unmodified, asks its human what a smith's run waits for.

Environment: URL (of the endpoint), SMITH_TOKEN (of a smith that has the tools of
mcp_workshop.py), DEAF_TOKEN (of the same smith, without approvals:write).
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


async def ask(mode, script, answers, token="SMITH_TOKEN"):
    """Asks; `answers` are the human's, and the messages that it saw are told."""
    seen = []

    async def human(context, params):
        seen.append(params)
        return answers[len(seen) - 1]

    headers = {"Authorization": f"Bearer {os.environ[token]}"}
    async with httpx.AsyncClient(headers=headers, timeout=20) as http:
        transport = streamable_http_client(os.environ["URL"], http_client=http)
        callback = human if answers else None
        async with Client(transport, mode=mode, elicitation_callback=callback) as client:
            return await client.call_tool("ask", {"message": script}), seen


async def main():
    accept = ElicitResult(action="accept", content={"approve": True})
    for mode in ("legacy", "auto"):
        both = 'measure {"thing": "x"}\n---\nmelt {"thing": "y"}\nmelt {"thing": "z"}'
        answer, seen = await ask(mode, both, [accept, accept])
        check(not answer.is_error, answer)
        check("y is molten" in answer.content[0].text and "z is molten" in answer.content[0].text, answer)
        check(sorted("melt" in asked.message for asked in seen) == [True, True], seen)

        one = 'melt {"thing": "no"}'
        for word in (
            ElicitResult(action="decline"),
            ElicitResult(action="accept", content={"approve": False}),
        ):
            answer, seen = await ask(mode, one, [word])
            check("no is molten" not in answer.content[0].text, answer)

        answer, seen = await ask(mode, 'cut {"thing": "bar"}', [ElicitResult(action="accept", content={"width": 7})])
        check("bar is 7 wide" in answer.content[0].text, answer)
        check(seen[0].message == "How wide shall bar be?", seen)
        check(seen[0].requested_schema["properties"]["width"]["type"] == "integer", seen)

        # A closed dialog, a host that cannot ask and a token that may not decide leave it open.
        for answers, token in (([ElicitResult(action="cancel")], "SMITH_TOKEN"), ([], "SMITH_TOKEN"), ([accept], "DEAF_TOKEN")):
            answer, seen = await ask(mode, one, answers, token)
            told = answer.structured_content
            check(told["status"] == "paused_for_approval", answer)
            check([call["tool"] for call in told["approvals"]] == ["melt"], answer)
            check("apr_" in answer.content[0].text, answer)
    print(f"mcp: {checks} checks of approvals")


asyncio.run(main())

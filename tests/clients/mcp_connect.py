"""The `mcp` package for Python, unmodified, connects to a deployment by OAuth.

Environment: URL (of the endpoint), SMITH_TOKEN (the connect token).
"""

import asyncio
import os
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
from mcp import ClientSession
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata


class Memory(TokenStorage):
    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, info):
        self.client = info


async def main():
    answer = {}

    async def human(url):
        fields = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        async with httpx.AsyncClient() as browser:
            page = await browser.get(url)
            assert page.status_code == 200 and "A Python host" in page.text, page.text
            form = {**fields, "connect_token": os.environ["SMITH_TOKEN"]}
            sent = await browser.post(url.split("?")[0], data=form)
            assert sent.status_code == 302, sent.text
            back = parse_qs(urlsplit(sent.headers["location"]).query)
            answer.update(code=back["code"][0], state=back["state"][0], iss=back["iss"][0])

    async def callback():
        return AuthorizationCodeResult(**answer)

    memory = Memory()
    metadata = OAuthClientMetadata(client_name="A Python host", redirect_uris=["http://localhost:3030/callback"])
    provider = OAuthClientProvider(os.environ["URL"], metadata, memory, redirect_handler=human, callback_handler=callback)
    async with httpx.AsyncClient(auth=provider, timeout=20) as http:
        async with streamable_http_client(os.environ["URL"], http_client=http) as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                await session.initialize()
                answered = await session.call_tool("ask", {"message": "hi"})
                assert not answered.is_error, answered
    assert memory.tokens.refresh_token and memory.tokens.scope == "runs:write approvals:write", memory.tokens
    print("mcp: connected")


asyncio.run(main())

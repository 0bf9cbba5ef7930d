"""Frameworks that speak OpenAI's wires through packages of their own: one smoke test each.

Environment: BASE_URL, SMITH_TOKEN (of a smith whose model asks for tools until it is given a
result). Arguments: which of them.
"""

import asyncio
import importlib.metadata
import os
import sys

BASE_URL, TOKEN = os.environ["BASE_URL"], os.environ["SMITH_TOKEN"]
HELLO = 'Hello, "wörld" \n😀'
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
seen = []


def saw(package):
    seen.append(f"{package} {importlib.metadata.version(package)}")


def langchain():
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def get_weather(city: str) -> str:
        """The weather of a city"""
        return "mild"

    for responses in (False, True):
        chat = ChatOpenAI(
            model="anthropic/loop", base_url=BASE_URL, api_key=TOKEN, max_retries=0, use_responses_api=responses
        )
        messages = [("user", "hi")]
        with_tools = chat.bind_tools([get_weather])
        asked = with_tools.invoke(messages)
        assert [call["args"]["city"] for call in asked.tool_calls] == ["Paris", "Rome"], asked
        results = [get_weather.invoke(call) for call in asked.tool_calls]
        answer = with_tools.invoke([*messages, asked, *results])
        assert answer.text == HELLO, answer
        text = ChatOpenAI(
            model="anthropic/text", base_url=BASE_URL, api_key=TOKEN, use_responses_api=responses, stream_usage=True
        )
        said = list(text.stream("hi"))
        assert "".join(piece.text for piece in said) == HELLO, said
    saw("langchain-openai")


def agents():
    from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
    from openai import AsyncOpenAI

    asked = []

    @function_tool
    def get_weather(city: str) -> str:
        """The weather of a city"""
        asked.append(city)
        return "mild"

    async def ask(model):
        client = AsyncOpenAI(base_url=BASE_URL, api_key=TOKEN, max_retries=0)
        agent = Agent(
            name="a", instructions="Be brief.", tools=[get_weather],
            model=model(model="anthropic/loop", openai_client=client),
        )
        return await Runner.run(agent, "hi")

    for model in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        asked.clear()
        result = asyncio.run(ask(model))
        assert (result.final_output, sorted(asked)) == (HELLO, ["Paris", "Rome"]), (result.final_output, asked)
    saw("openai-agents")


def llama_index():
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(
        model="anthropic/text", api_base=BASE_URL, api_key=TOKEN, is_chat_model=True, max_retries=0
    )
    answer = model.chat([ChatMessage(role="user", content="hi")])
    assert answer.message.content == HELLO, answer
    said = [piece.delta or "" for piece in model.stream_chat([ChatMessage(role="user", content="hi")])]
    assert "".join(said) == HELLO, said
    saw("llama-index-llms-openai-like")


def litellm():
    import litellm

    options = dict(model="openai/anthropic/text", api_base=BASE_URL, api_key=TOKEN, num_retries=0)
    answer = litellm.completion(messages=[{"role": "user", "content": "hi"}], **options)
    assert answer.choices[0].message.content == HELLO, answer
    stream = litellm.completion(messages=[{"role": "user", "content": "hi"}], stream=True, **options)
    said = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(said) == HELLO, said
    response = litellm.responses(input="hi", **options)
    assert response.output[0].content[0].text == HELLO, response
    saw("litellm")


for framework in sys.argv[1:]:
    {"langchain": langchain, "agents": agents, "llama_index": llama_index, "litellm": litellm}[framework]()
print(", ".join(seen))

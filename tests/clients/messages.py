"""The `anthropic` package for Python, unmodified, on Messages.

Environment: BASE_URL (with /v1, which this package adds itself), TOKEN (an admin token), SMITH (its
model asks for tools until it is given a result), SMITH_TOKEN, WIRES (the providers' names, by comma).
"""

import asyncio
import os

import anthropic
from pydantic import BaseModel

BASE_URL = os.environ["BASE_URL"].removesuffix("/v1")
WIRES = os.environ["WIRES"].split(",")
HELLO = 'Hello, "wörld" \n😀'
ASK = [{"role": "user", "content": "hi"}]
TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather of a city",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
]
checks = 0


class Person(BaseModel):
    name: str
    age: int


def check(condition, *about):
    global checks
    assert condition, about
    checks += 1


def client(**options):
    return anthropic.Anthropic(base_url=BASE_URL, **{"api_key": os.environ["TOKEN"], "max_retries": 0, **options})


def raises(error_class, call):
    try:
        answer = call()
    except error_class as error:
        check(True)
        return error
    raise AssertionError(("nothing raised", error_class, answer))


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def texts(api):
    for wire in WIRES:
        asked = {"model": f"{wire}/text", "max_tokens": 100, "messages": ASK}
        whole = api.messages.create(**asked)
        check(text_of(whole) == HELLO, wire, whole)
        check(whole.stop_reason == "end_turn" and whole.role == "assistant", wire, whole)
        check(whole._request_id, wire)
        usage = whole.usage
        cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        check(usage.input_tokens + cached == 21 and usage.output_tokens == 9, wire, usage)
        with api.messages.stream(**asked) as stream:
            said = "".join(stream.text_stream)
            final = stream.get_final_message()
        check(said == HELLO and text_of(final) == HELLO, wire, said, final)
        check(final.stop_reason == "end_turn" and final.usage.output_tokens == 9, wire, final)
        events = [event.type for event in api.messages.create(**asked, stream=True)]
        check(events[0] == "message_start" and events[-1] == "message_stop", wire, events)
        cut = api.messages.create(**{**asked, "model": f"{wire}/length"}, stream=True)
        reasons = [event.delta.stop_reason for event in cut if event.type == "message_delta"]
        check(reasons == ["max_tokens"], wire, reasons)
        with api.beta.messages.stream(**asked, betas=["context-1m-2025-08-07"]) as stream:
            check(text_of(stream.get_final_message()) == HELLO, wire)


def thinking(api):
    for wire in WIRES:
        asked = {"model": f"{wire}/tools", "max_tokens": 4000, "messages": ASK, "tools": TOOLS}
        with api.messages.stream(**asked, thinking={"type": "adaptive"}) as stream:
            final = stream.get_final_message()
        kinds = [block.type for block in final.content]
        check("tool_use" in kinds, wire, kinds)
        if "thinking" in kinds:
            block = next(block for block in final.content if block.type == "thinking")
            check(block.signature, wire, block)
        elif wire == "anthropic":
            raise AssertionError((wire, kinds))
        plain = api.messages.create(**asked)
        if wire != "anthropic":
            check(all(block.type != "thinking" for block in plain.content), wire, plain)


def tool_loop(api, **options):
    for stream in (False, True):
        messages = list(ASK)
        asked, last = [], None
        for _ in range(4):
            call = {"max_tokens": 4000, "messages": messages, "tools": TOOLS, **options}
            if stream:
                with api.messages.stream(**call) as events:
                    last = events.get_final_message()
            else:
                last = api.messages.create(**call)
            if last.stop_reason != "tool_use":
                break
            uses = [block for block in last.content if block.type == "tool_use"]
            asked += [block.input["city"] for block in uses]
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": f"mild in {block.input['city']}"}
                for block in uses
            ]
            messages += [
                {"role": "assistant", "content": last.content},
                {"role": "user", "content": results},
            ]
        check(asked == ["Paris", "Rome"], options, asked)
        check(text_of(last) == HELLO, options, last)


def tool_runner(api):
    asked = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return f"mild in {city}"

    for wire in WIRES:
        asked.clear()
        runner = api.beta.messages.tool_runner(
            model=f"{wire}/loop", max_tokens=4000, messages=ASK, tools=[get_weather]
        )
        check(text_of(runner.until_done()) == HELLO, wire)
        check(asked == ["Paris", "Rome"], wire, asked)


def structured(api):
    for wire in WIRES:
        parsed = api.messages.parse(
            model=f"{wire}/structured", max_tokens=4000, messages=ASK, output_format=Person
        )
        check(parsed.parsed_output.age == 36, wire, parsed)


def errors(api):
    ask = {"max_tokens": 10, "messages": ASK}
    error = raises(
        anthropic.AuthenticationError,
        lambda: client(api_key="tha_live_no").messages.create(model="anthropic/text", **ask),
    )
    check(error.type == "authentication_error" and error.request_id, error, error.body)
    error = raises(
        anthropic.BadRequestError,
        lambda: api.messages.create(model="openai-chat/text", max_tokens=10, messages=[]),
    )
    check(error.type == "invalid_request_error" and error.error_code == "invalid_request", error.body)
    check("messages" in str(error), error)
    raises(anthropic.BadRequestError, lambda: api.messages.create(model="text", **ask))
    raises(anthropic.NotFoundError, lambda: api.messages.create(model="anthropic/status-404", **ask))
    error = raises(anthropic.RateLimitError, lambda: api.messages.create(model="openai-chat/status-429", **ask))
    check(error.response.headers["retry-after"], error.response.headers)
    error = raises(anthropic.OverloadedError, lambda: api.messages.create(model="anthropic/status-529", **ask))
    check(error.type == "overloaded_error", error.body)
    raises(anthropic.InternalServerError, lambda: api.messages.create(model="gemini/status-401", **ask))

    def in_stream():
        with api.messages.stream(model="openai-chat/fault-in-stream", **ask) as stream:
            return stream.get_final_message()

    error = raises(anthropic.APIStatusError, in_stream)
    check("on fire" in str(error) and error.type == "api_error", error)
    # Tried again, as any of Anthropic's.
    again = client(max_retries=2).messages.create(model="openai-chat/flaky-1@py", **ask)
    check(text_of(again) == HELLO, again)


def counts(api):
    for wire in WIRES:
        count = api.messages.count_tokens(model=f"{wire}/text", messages=ASK, tools=TOOLS, system="Be brief.")
        check(count.input_tokens > 20, wire, count)
        if wire == "anthropic":
            check(count.input_tokens == 42, count)


def smiths():
    smith = client(api_key=os.environ["SMITH_TOKEN"])
    tool_loop(smith, model="")
    named = client(default_headers={"IC-Smith-Id": os.environ["SMITH"], "IC-Thread-Id": "messages-py"})
    with named.messages.stream(model="", max_tokens=100, messages=ASK, tools=TOOLS) as stream:
        check(stream.get_final_message().stop_reason == "tool_use")
    # The token as a bearer.
    bearer = anthropic.Anthropic(base_url=BASE_URL, api_key=None, auth_token=os.environ["TOKEN"], max_retries=0)
    whole = bearer.messages.create(model="anthropic/text", max_tokens=10, messages=ASK)
    check(text_of(whole) == HELLO, whole)


async def at_once():
    async with anthropic.AsyncAnthropic(base_url=BASE_URL, api_key=os.environ["TOKEN"], max_retries=0) as api:
        calls = [
            api.messages.create(model=f"{wire}/text", max_tokens=10, messages=ASK)
            for wire in WIRES
            for _ in range(5)
        ]
        for answer in await asyncio.gather(*calls):
            check(text_of(answer) == HELLO, answer)


os.environ.pop("ANTHROPIC_API_KEY", None)
api = client()
texts(api)
thinking(api)
for wire in WIRES:
    tool_loop(api, model=f"{wire}/loop")
    tool_loop(api, model=f"{wire}/loop", thinking={"type": "adaptive"})
tool_runner(api)
structured(api)
errors(api)
counts(api)
smiths()
asyncio.run(at_once())
print(f"anthropic {anthropic.__version__}: {checks} checks")

"""The `openai` package for Python, unmodified, on Chat Completions.

Environment: BASE_URL, TOKEN (an admin token), SMITH (its model asks for tools until it is given a
result), SMITH_TOKEN, WIRES (the providers' names, by comma).
"""

import asyncio
import base64
import json
import os
import time

import openai
from pydantic import BaseModel

BASE_URL = os.environ["BASE_URL"]
WIRES = os.environ["WIRES"].split(",")
HELLO = 'Hello, "wörld" \n😀'
ASK = [{"role": "user", "content": "hi"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "strict": True,
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
    return openai.OpenAI(base_url=BASE_URL, api_key=os.environ["TOKEN"], **{"max_retries": 0, **options})


def raises(error_class, call):
    try:
        answer = call()
    except error_class as error:
        check(True)
        return error
    raise AssertionError(("nothing raised", error_class, answer))


def texts(api):
    for wire in WIRES:
        whole = api.chat.completions.create(model=f"{wire}/text", messages=ASK)
        check(whole.choices[0].message.content == HELLO, whole)
        check(whole.choices[0].finish_reason == "stop", whole)
        check(whole.usage.total_tokens == 30 and whole.usage.prompt_tokens == 21, whole)
        check(whole._request_id, "no request id")

        stream = api.chat.completions.create(
            model=f"{wire}/text", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        check(said == HELLO, wire, said)
        check(chunks[-1].usage.total_tokens == 30, wire, chunks[-1])
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        check(reasons[-1] == "stop" and not any(reasons[:-1]), wire, reasons)
        check(len({c.id for c in chunks}) == 1, wire)

        # Without the option no usage is told.
        chunks = list(api.chat.completions.create(model=f"{wire}/text", messages=ASK, stream=True))
        check(all(c.usage is None for c in chunks), wire)

        # The helper that folds a stream into one answer.
        with api.chat.completions.stream(model=f"{wire}/text", messages=ASK) as events:
            final = events.get_final_completion()
        check(final.choices[0].message.content == HELLO, wire, final)
        with api.chat.completions.stream(model=f"{wire}/length", messages=ASK) as events:
            error = raises(openai.LengthFinishReasonError, events.get_final_completion)
        check(error.completion.choices[0].finish_reason == "length", wire, error)


def tool_loops(api):
    for wire in WIRES:
        for streamed in (False, True):
            messages = list(ASK)
            for turn in range(3):
                options = dict(model=f"{wire}/loop", messages=messages, tools=TOOLS)
                if streamed:
                    with api.chat.completions.stream(**options) as events:
                        answer = events.get_final_completion()
                else:
                    answer = api.chat.completions.create(**options)
                message = answer.choices[0].message
                messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
                if not message.tool_calls:
                    break
                check(answer.choices[0].finish_reason == "tool_calls", wire, answer)
                cities = []
                for call in message.tool_calls:
                    check(call.function.name == "get_weather", wire, call)
                    arguments = call.function.arguments
                    cities.append(json.loads(arguments)["city"])
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": "mild"})
                check(cities == ["Paris", "Rome"], wire, cities)
                check(len({call.id for call in message.tool_calls}) == 2, wire)
            check(turn == 1 and message.content == HELLO, wire, streamed, message)


def structured(api):
    for wire in WIRES:
        parsed = api.chat.completions.parse(
            model=f"{wire}/structured", messages=ASK, response_format=Person
        )
        check(parsed.choices[0].message.parsed == Person(name="Ada", age=36), wire, parsed)
        with api.chat.completions.stream(
            model=f"{wire}/structured", messages=ASK, response_format=Person
        ) as events:
            final = events.get_final_completion()
        check(final.choices[0].message.parsed == Person(name="Ada", age=36), wire, final)


def images_and_files(api):
    picture = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    paper = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.4").decode()
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "file", "file": {"filename": "paper.pdf", "file_data": paper}},
    ]
    for wire in WIRES:
        answer = api.chat.completions.create(
            model=f"{wire}/text", messages=[{"role": "user", "content": content}]
        )
        check(answer.choices[0].message.content == HELLO, wire)


def errors(api):
    create = api.chat.completions.create
    bad = openai.OpenAI(base_url=BASE_URL, api_key="tha_live_wrong", max_retries=0)
    error = raises(
        openai.AuthenticationError,
        lambda: bad.chat.completions.create(model="x/y", messages=ASK),
    )
    check(error.code == "unauthenticated" and error.request_id, error)
    error = raises(openai.BadRequestError, lambda: create(model="anthropic/text", messages=[]))
    check(error.param == "messages", error)
    error = raises(
        openai.BadRequestError,
        lambda: create(model="anthropic/text", messages=ASK, temperature="hot"),
    )
    check(error.param == "temperature", error)
    raises(openai.NotFoundError, lambda: api.models.retrieve("no/such"))
    for wire in WIRES:
        for code, classes in [
            (400, openai.BadRequestError),
            (401, openai.InternalServerError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
        ]:
            for stream in (False, True):
                error = raises(
                    classes,
                    lambda: create(model=f"{wire}/status-{code}", messages=ASK, stream=stream),
                )
                if code == 429:
                    check(error.response.headers["retry-after"] == "1", wire)
                if code == 401:
                    # The provider refused the gateway's key; the client's token is fine.
                    check(error.code == "model_request_failed", wire, error)
        # A stream that is cut raises while it is read.
        stream = create(model=f"{wire}/fault-half", messages=ASK, stream=True)
        raises(openai.APIError, lambda: list(stream))


def retries():
    for wire in WIRES:
        api = client(max_retries=2)
        started = time.monotonic()
        stream = api.chat.completions.create(
            model=f"{wire}/flaky-1@python", messages=ASK, stream=True
        )
        said = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        waited = time.monotonic() - started
        check(said == HELLO and waited >= 1.0, wire, waited)
        error = raises(
            openai.RateLimitError,
            lambda: client().chat.completions.create(model=f"{wire}/flaky-1@never", messages=ASK),
        )
        check(wire == "openai-chat" or error.code == "rate_limit_exceeded", wire, error)


def smiths(api):
    of_smith = {"extra_headers": {"IC-Smith-Id": os.environ["SMITH"]}}
    own = openai.OpenAI(base_url=BASE_URL, api_key=os.environ["SMITH_TOKEN"], max_retries=0)
    for call in (
        lambda **o: api.chat.completions.create(**o, **of_smith),
        own.chat.completions.create,
    ):
        messages = list(ASK)
        message = call(model="", messages=messages, tools=TOOLS).choices[0].message
        check([c.function.name for c in message.tool_calls] == ["get_weather"] * 2, message)
        messages.append(message.model_dump(exclude_none=True))
        for made in message.tool_calls:
            messages.append({"role": "tool", "tool_call_id": made.id, "content": "mild"})
        stream = call(model="", messages=messages, tools=TOOLS, stream=True)
        said = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        check(said == HELLO, said)
    error = raises(
        openai.NotFoundError,
        lambda: api.chat.completions.create(
            model="", messages=ASK, extra_headers={"IC-Smith-Id": "smt_none"}
        ),
    )
    check(error.code == "not_found", error)


def models(api):
    ids = [model.id for model in api.models.list()]
    check(all(f"{wire}/text" in ids for wire in WIRES), ids)
    check(api.models.retrieve(ids[0]).id == ids[0], ids)


async def concurrent():
    api = openai.AsyncOpenAI(base_url=BASE_URL, api_key=os.environ["TOKEN"], max_retries=0)

    async def one(wire):
        stream = await api.chat.completions.create(
            model=f"{wire}/text", messages=ASK, stream=True
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    said = await asyncio.gather(*(one(wire) for wire in WIRES * 8))
    check(said == [HELLO] * len(said), said)


def main():
    api = client()
    texts(api)
    tool_loops(api)
    structured(api)
    images_and_files(api)
    errors(api)
    retries()
    smiths(api)
    models(api)
    asyncio.run(concurrent())
    print(f"openai {openai.__version__} for Python: {checks} checks")


main()

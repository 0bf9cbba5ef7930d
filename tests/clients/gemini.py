"""The `google-genai` package for Python, unmodified, on Gemini's wire.

Environment: BASE_URL (with /v1, in whose place this package puts a version of its own), TOKEN (an admin
token), SMITH (its model asks for tools until it is given a result), SMITH_TOKEN, WIRES (the providers'
names, by comma).
"""

import asyncio
import base64
import os

from google import genai
from google.genai import errors, types
from pydantic import BaseModel

BASE_URL = os.environ["BASE_URL"].removesuffix("/v1")
WIRES = os.environ["WIRES"].split(",")
HELLO = 'Hello, "wörld" \n😀'
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            description="The weather of a city",
            parameters=types.Schema(
                type=types.Type.OBJECT,
                properties={"city": types.Schema(type=types.Type.STRING)},
                required=["city"],
            ),
        )
    ]
)
NOT_CALLED = types.AutomaticFunctionCallingConfig(disable=True)
checks = 0


class Person(BaseModel):
    name: str
    age: int


def check(condition, *about):
    global checks
    assert condition, about
    checks += 1


def client(token=None, **http_options):
    http_options = {"base_url": BASE_URL, **http_options}
    return genai.Client(api_key=token or os.environ["TOKEN"], http_options=http_options)


def raises(code, status, call):
    try:
        answer = call()
    except errors.APIError as error:
        check((error.code, error.status) == (code, status), error)
        return error
    raise AssertionError(("nothing raised", code, answer))


def texts(api):
    for wire in WIRES:
        model = f"{wire}/text"
        whole = api.models.generate_content(model=model, contents="hi")
        check(whole.text == HELLO, wire, whole)
        check(whole.candidates[0].finish_reason == types.FinishReason.STOP, wire, whole)
        usage = whole.usage_metadata
        check(usage.prompt_token_count == 21 and usage.total_token_count == 30, wire, usage)
        check(usage.candidates_token_count + (usage.thoughts_token_count or 0) == 9, wire, usage)
        check(whole.response_id and whole.model_version, wire, whole)
        pieces = list(api.models.generate_content_stream(model=model, contents=["hi"]))
        check("".join(piece.text or "" for piece in pieces) == HELLO, wire, pieces)
        check(pieces[-1].usage_metadata.total_token_count == 30, wire, pieces[-1])
        check(pieces[-1].candidates[0].finish_reason == types.FinishReason.STOP, wire, pieces[-1])
        cut = list(api.models.generate_content_stream(model=f"{wire}/length", contents="hi"))
        check(cut[-1].candidates[0].finish_reason == types.FinishReason.MAX_TOKENS, wire, cut)
        config = types.GenerateContentConfig(
            system_instruction="Be brief.",
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            max_output_tokens=100,
            stop_sequences=["END"],
            seed=1,
            presence_penalty=0.1,
            safety_settings=[
                types.SafetySetting(
                    category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE"
                )
            ],
        )
        check(api.models.generate_content(model=model, contents="hi", config=config).text == HELLO, wire)
        chat = api.chats.create(model=model)
        check(chat.send_message("hi").text == HELLO, wire)
        said = "".join(piece.text or "" for piece in chat.send_message_stream("again"))
        check(said == HELLO, wire, said)
        # What was streamed is kept, so that the next turn has it.
        check(chat.send_message("and again").text == HELLO, wire)
        roles = [content.role for content in chat.get_history(curated=True)]
        check(roles.count("user") == 3 and roles[-1] == "model", wire, roles)


def pictures(api):
    for wire in WIRES:
        parts = [types.Part.from_bytes(data=PIXEL, mime_type="image/png"), "What is this?"]
        check(api.models.generate_content(model=f"{wire}/text", contents=parts).text == HELLO, wire)


def tool_loop(api, model, **config):
    for stream in (False, True):
        contents = [types.Content(role="user", parts=[types.Part(text="hi")])]
        asked, said = [], ""
        for _ in range(4):
            call = {
                "model": model,
                "contents": contents,
                "config": types.GenerateContentConfig(
                    tools=[TOOL], automatic_function_calling=NOT_CALLED, **config
                ),
            }
            if stream:
                pieces = list(api.models.generate_content_stream(**call))
            else:
                pieces = [api.models.generate_content(**call)]
            parts = [part for piece in pieces for part in piece.candidates[0].content.parts or []]
            said = "".join(part.text or "" for part in parts if not part.thought)
            calls = [part.function_call for part in parts if part.function_call]
            if not calls:
                break
            asked += [call.args["city"] for call in calls]
            results = [
                types.Part(
                    function_response=types.FunctionResponse(
                        id=call.id, name=call.name, response={"result": f"mild in {call.args['city']}"}
                    )
                )
                for call in calls
            ]
            contents += [
                types.Content(role="model", parts=parts),
                types.Content(role="user", parts=results),
            ]
        check(asked == ["Paris", "Rome"], model, config, asked)
        check(said == HELLO, model, config, said)


def called_automatically(api):
    asked = []

    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return f"mild in {city}"

    for wire in WIRES:
        asked.clear()
        config = types.GenerateContentConfig(tools=[get_weather])
        answer = api.models.generate_content(model=f"{wire}/loop", contents="hi", config=config)
        check(answer.text == HELLO, wire, answer)
        check(asked == ["Paris", "Rome"], wire, asked)
        asked.clear()
        stream = api.models.generate_content_stream(model=f"{wire}/loop", contents="hi", config=config)
        said = "".join(piece.text or "" for piece in stream)
        check(said.endswith(HELLO) and asked == ["Paris", "Rome"], wire, said, asked)
        asked.clear()
        chat = api.chats.create(model=f"{wire}/loop", config=config)
        check(chat.send_message("hi").text == HELLO and len(asked) == 2, wire, asked)
        # The history has the calls, and goes on.
        check(chat.send_message("again").text == HELLO, wire)


def thoughts(api):
    for wire in WIRES:
        for shown in (False, True):
            config = types.GenerateContentConfig(
                tools=[TOOL],
                automatic_function_calling=NOT_CALLED,
                thinking_config=types.ThinkingConfig(include_thoughts=shown, thinking_budget=2048),
            )
            pieces = api.models.generate_content_stream(
                model=f"{wire}/tools", contents="hi", config=config
            )
            parts = [part for piece in pieces for part in piece.candidates[0].content.parts or []]
            check(any(part.function_call for part in parts), wire, parts)
            told = [part for part in parts if part.thought]
            check(wire == "gemini" or shown or not told, wire, told)
            if wire == "anthropic" and shown:
                check(any(part.text for part in told), parts)
                check(any(part.thought_signature for part in told), parts)


def structured(api):
    for wire in WIRES:
        config = types.GenerateContentConfig(
            response_mime_type="application/json", response_schema=Person
        )
        answer = api.models.generate_content(
            model=f"{wire}/structured", contents="hi", config=config
        )
        check(answer.parsed.age == 36, wire, answer)
        config = types.GenerateContentConfig(
            response_mime_type="application/json", response_json_schema=Person.model_json_schema()
        )
        answer = api.models.generate_content(
            model=f"{wire}/structured", contents="hi", config=config
        )
        check(Person.model_validate_json(answer.text).age == 36, wire, answer)


def failures(api):
    def ask(model, **more):
        return lambda: api.models.generate_content(model=model, contents="hi", **more)

    wrong = client("tha_live_no")
    error = raises(
        401,
        "UNAUTHENTICATED",
        lambda: wrong.models.generate_content(model="gemini/text", contents="hi"),
    )
    check(isinstance(error, errors.ClientError), error)
    search = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
    error = raises(400, "INVALID_ARGUMENT", ask("openai-chat/text", config=search))
    check("googleSearch" in error.message, error)
    # Google itself is asked to search.
    check(ask("gemini/text", config=search)().text == HELLO)
    raises(400, "INVALID_ARGUMENT", ask("text"))
    raises(404, "NOT_FOUND", ask("gemini/status-404"))
    error = raises(429, "RESOURCE_EXHAUSTED", ask("openai-chat/status-429"))
    retry = [d for d in error.details["error"]["details"] if d["@type"].endswith("RetryInfo")]
    check(retry and retry[0]["retryDelay"].endswith("s"), error.details)
    error = raises(503, "UNAVAILABLE", ask("anthropic/status-529"))
    check(isinstance(error, errors.ServerError), error)
    raises(502, "INTERNAL", ask("anthropic/status-401"))
    error = raises(
        502,
        "INTERNAL",
        lambda: list(
            api.models.generate_content_stream(model="openai-chat/fault-in-stream", contents="hi")
        ),
    )
    check("on fire" in error.message, error)
    raises(
        429,
        "RESOURCE_EXHAUSTED",
        lambda: list(
            api.models.generate_content_stream(model="openai-chat/status-429", contents="hi")
        ),
    )


def counts(api):
    for wire in WIRES:
        count = api.models.count_tokens(model=f"{wire}/text", contents="word " * 40)
        check(count.total_tokens > 20, wire, count)
        if wire == "gemini":
            check(count.total_tokens == 42, count)


def models(api):
    listed = list(api.models.list())
    check(listed and all(model.name.startswith("models/") for model in listed), listed)
    paged = list(api.models.list(config={"page_size": 1}))
    check([model.name for model in paged] == [model.name for model in listed], paged)
    check(api.models.get(model=listed[0].name).name == listed[0].name)
    raises(404, "NOT_FOUND", lambda: api.models.get(model="nothing/here"))


def smiths():
    smith = client(os.environ["SMITH_TOKEN"])
    tool_loop(smith, "smith")
    named = client(headers={"IC-Smith-Id": os.environ["SMITH"], "IC-Thread-Id": "gemini-py"})
    config = types.GenerateContentConfig(tools=[TOOL], automatic_function_calling=NOT_CALLED)
    answer = named.models.generate_content(model="smith", contents="hi", config=config)
    check(len(answer.function_calls) == 2, answer)


async def at_once():
    api = client()
    calls = [
        api.aio.models.generate_content(model=f"{wire}/text", contents="hi")
        for wire in WIRES
        for _ in range(5)
    ]
    for answer in await asyncio.gather(*calls):
        check(answer.text == HELLO, answer)
    for wire in WIRES:
        said = ""
        async for piece in await api.aio.models.generate_content_stream(
            model=f"{wire}/text", contents="hi"
        ):
            said += piece.text or ""
        check(said == HELLO, wire, said)


for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
    os.environ.pop(name, None)
api = client()
beta = client(api_version="v1beta")
texts(api)
pictures(api)
thoughts(api)
for wire in WIRES:
    tool_loop(api, f"{wire}/loop")
    shown = types.ThinkingConfig(include_thoughts=True)
    tool_loop(api, f"{wire}/loop", thinking_config=shown)
    # By default this package asks the stable version.
    answer = beta.models.generate_content(model=f"{wire}/text", contents="hi")
    check(answer.text == HELLO, wire, answer)
called_automatically(api)
structured(api)
failures(api)
counts(api)
# There `/v1/models` is OpenAI's list.
models(beta)
smiths()
asyncio.run(at_once())
print(f"google-genai {genai.__version__}: {checks} checks")

"""The `openai` package for Python, unmodified, used in ways that are seldom: keys of idempotency,
raw and streamed answers, helpers, times out, many at once.

Environment: BASE_URL, TOKEN (an admin token), SMITH, SMITH_TOKEN.
"""

import asyncio
import os
import time

import openai
from pydantic import BaseModel, Field

BASE_URL = os.environ["BASE_URL"]
HELLO = 'Hello, "wörld" \n😀'
checks = 0


class Person(BaseModel):
    name: str = Field(description="Of the person")
    age: int


def check(condition, *about):
    global checks
    assert condition, about
    checks += 1


def client(kind=openai.OpenAI, **options):
    defaults = {"base_url": BASE_URL, "api_key": os.environ["TOKEN"], "max_retries": 0}
    headers = {"IC-Smith-Id": os.environ["SMITH"]}
    return kind(**{**defaults, "default_headers": headers, **options})


def raises(error_class, call):
    try:
        answer = call()
    except error_class as error:
        check(True)
        return error
    raise AssertionError(("nothing raised", error_class, answer))


def keys(api):
    """The same key gives the same answer, whole or streamed, and another body is refused."""
    key = {"Idempotency-Key": "key of a call"}
    ask = {"model": "anthropic/text", "input": "hi"}
    first = api.responses.create(**ask, extra_headers=key)
    again = api.responses.create(**ask, extra_headers=key)
    check(again.to_dict() == first.to_dict() and again._request_id != first._request_id, again)
    error = raises(openai.ConflictError, lambda: api.responses.create(**ask, user="x", extra_headers=key))
    check(error.code == "idempotency_key_reused", error)
    key = {"Idempotency-Key": "key of a stream"}
    streams = []
    for _ in range(2):
        with api.responses.stream(**ask, extra_headers=key) as stream:
            streams.append(([event.to_dict() for event in stream], stream.get_final_response()))
    check(streams[0][0] == streams[1][0], streams)
    check(streams[1][1].output_text == HELLO, streams[1][1])
    ask = {"model": "anthropic/text", "messages": [{"role": "user", "content": "hi"}]}
    key = {"Idempotency-Key": "key of a chat"}
    first = api.chat.completions.create(**ask, extra_headers=key)
    check(api.chat.completions.create(**ask, extra_headers=key).to_dict() == first.to_dict(), first)
    chunks = [list(api.chat.completions.create(**ask, stream=True, extra_headers={"Idempotency-Key": "chunks"}))
              for _ in range(2)]
    check([c.to_dict() for c in chunks[0]] == [c.to_dict() for c in chunks[1]], chunks)


def raw(api):
    answer = api.responses.with_raw_response.create(model="anthropic/text", input="hi")
    check(answer.headers["x-request-id"] and answer.parse().output_text == HELLO, answer)
    with api.responses.with_streaming_response.create(model="anthropic/text", input="hi", stream=True) as answer:
        lines = list(answer.iter_lines())
    check(lines[0] == "event: response.created" and lines[-2].startswith("data: {"), lines[:2], lines[-3:])
    answer = api.chat.completions.with_raw_response.create(
        model="anthropic/text", messages=[{"role": "user", "content": "hi"}], stream=True)
    check("".join(c.choices[0].delta.content or "" for c in answer.parse()) == HELLO, "raw chat")


def helpers(api):
    parsed = api.responses.parse(model="anthropic/structured", input="who?", text_format=Person)
    check(parsed.output_parsed.age == 36, parsed)
    parsed = api.chat.completions.parse(
        model="anthropic/structured", messages=[{"role": "user", "content": "who?"}], response_format=Person)
    check(parsed.choices[0].message.parsed.age == 36, parsed)
    with api.chat.completions.stream(
            model="anthropic/text", messages=[{"role": "user", "content": "hi"}],
            stream_options={"include_usage": True}) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    check("content.delta" in events and final.choices[0].message.content == HELLO, events)
    check(final.usage.total_tokens == 30, final.usage)
    tool = openai.pydantic_function_tool(Person, name="get_weather")
    with api.chat.completions.stream(
            model="anthropic/tools", messages=[{"role": "user", "content": "hi"}]) as stream:
        list(stream)
    check(tool["function"]["name"] == "get_weather", tool)
    made = api.responses.create(model="anthropic/text", input="hi", background=True, stream=True)
    first = next(iter(made))
    made.close()
    # What was left goes on, and the helper takes it up again.
    with api.responses.stream(response_id=first.response.id, starting_after=0) as stream:
        check(stream.get_final_response().output_text == HELLO, "taken up again")


def lists(api):
    made = [api.conversations.create(metadata={"n": str(n)}) for n in range(3)]
    for conversation in made:
        check(api.conversations.retrieve(conversation.id).metadata == conversation.metadata, conversation)
    changed = api.conversations.update(made[0].id, metadata={"n": "9"})
    check(changed.metadata == {"n": "9"}, changed)
    check(api.conversations.delete(made[0].id).deleted, "deleted")
    raises(openai.NotFoundError, lambda: api.conversations.retrieve(made[0].id))
    answer = api.responses.create(model="anthropic/text", conversation={"id": made[1].id}, input=[
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
        {"role": "user", "content": "c"}])
    kept = list(api.conversations.items.list(made[1].id, order="asc", include=["message.output_text.logprobs"]))
    check([item.content[0].text for item in kept] == ["a", "b", "c", HELLO], kept)
    newest = api.conversations.items.list(made[1].id, limit=1)
    check(newest.data[0].id == answer.output[0].id and newest.has_more, newest)
    asked = api.responses.input_items.list(answer.id, order="asc", limit=2)
    check(len(asked.data) == 2 and asked.has_more and len(list(asked)) == 3, asked)
    check(api.models.retrieve(api.models.list().data[0].id).object == "model", "models")


def times_out(api):
    hasty = api.with_options(timeout=0.3)
    begun = time.monotonic()
    raises(openai.APITimeoutError, lambda: hasty.responses.create(model="anthropic/fault-stall", input="hi"))
    check(time.monotonic() - begun < 3, "in time")
    # The same key, tried again by the package itself: the first was cancelled with its client.
    patient = api.with_options(timeout=0.4, max_retries=2)
    raises((openai.APITimeoutError, openai.ConflictError), lambda: patient.chat.completions.create(
        model="anthropic/fault-stall", messages=[{"role": "user", "content": "hi"}],
        extra_headers={"Idempotency-Key": "patient"}))
    answer = api.chat.completions.create(model="anthropic/text", messages=[{"role": "user", "content": "hi"}])
    check(answer.choices[0].message.content == HELLO, answer)


def odd_input(api):
    texts = [
        [{"type": "message", "role": "user", "content": "hi", "status": "completed"}],
        [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": ""}, {"role": "user", "content": "hi"}],
        [{"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x"}]},
         {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
    ]
    for text in texts:
        check(api.responses.create(model="anthropic/text", input=text).output_text == HELLO, text)
    more = dict(temperature=0.1, top_p=0.5, truncation="auto", max_output_tokens=64, service_tier="auto",
                safety_identifier="u", prompt_cache_key="p", metadata={}, include=[], parallel_tool_calls=True,
                reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "low"}, tool_choice="auto", tools=[],
                top_logprobs=0, max_tool_calls=3, store=True, user="u", prompt_cache_retention="24h")
    answer = api.responses.create(model="anthropic/text", input="hi", **more)
    check(answer.output_text == HELLO and answer.temperature == 0.1 and answer.metadata == {}, answer)
    more = dict(temperature=0.1, top_p=0.5, max_completion_tokens=64, service_tier="auto", seed=1, logit_bias={},
                safety_identifier="u", prompt_cache_key="p", metadata={}, presence_penalty=0, frequency_penalty=0,
                reasoning_effort="low", verbosity="low", tool_choice="none", store=False, n=1, stop=[], logprobs=False,
                modalities=["text"], user="u", response_format={"type": "text"})
    answer = api.chat.completions.create(
        model="anthropic/text", messages=[{"role": "user", "name": "Ada", "content": "hi"}], **more)
    check(answer.choices[0].message.content == HELLO, answer)


async def at_once():
    api = client(openai.AsyncOpenAI)
    answers = await asyncio.gather(*(api.responses.create(model="anthropic/text", input=f"{n}") for n in range(20)))
    check(len({answer.id for answer in answers}) == 20, answers)

    async def same(key):
        try:
            answer = await api.responses.create(
                model="anthropic/text", input="hi", extra_headers={"Idempotency-Key": key})
            return answer.id
        except openai.ConflictError as error:
            check(error.code == "idempotency_in_progress", error)
            return None

    ids = set(await asyncio.gather(*(same("all at once") for _ in range(8)))) - {None}
    check(len(ids) == 1, ids)
    # The package tries a conflict again by itself.
    stubborn = client(openai.AsyncOpenAI, max_retries=4)
    asked = (stubborn.responses.create(model="anthropic/text", input="hi", extra_headers={"Idempotency-Key": "stubborn"})
             for _ in range(4))
    ids = {answer.id for answer in await asyncio.gather(*asked)}
    check(len(ids) == 1, ids)
    stream = await api.responses.create(model="anthropic/fault-slow", input="hi", stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()


def main():
    for api in (client(), client(api_key=os.environ["SMITH_TOKEN"], default_headers={})):
        keys(api)
        raw(api)
        helpers(api)
        lists(api)
        odd_input(api)
    times_out(client())
    asyncio.run(at_once())
    print(f"openai {openai.__version__} for Python in odd ways: {checks} checks")


main()

"""The `openai` package for Python, unmodified, on Responses.

Environment: BASE_URL, TOKEN (an admin token), SMITH (its model asks for tools until it is given a
result), SMITH_TOKEN, WIRES (the providers' names, by comma).
"""

import json
import os
import time

import openai
from pydantic import BaseModel

BASE_URL = os.environ["BASE_URL"]
WIRES = os.environ["WIRES"].split(",")
HELLO = 'Hello, "wörld" \n😀'
TOOLS = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
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
    defaults = {"base_url": BASE_URL, "api_key": os.environ["TOKEN"], "max_retries": 0}
    return openai.OpenAI(**{**defaults, **options})


def smiths(**options):
    return client(default_headers={"IC-Smith-Id": os.environ["SMITH"]}, **options)


def raises(error_class, call):
    try:
        answer = call()
    except error_class as error:
        check(True)
        return error
    raise AssertionError(("nothing raised", error_class, answer))


def in_order(events, *about):
    check([e.sequence_number for e in events] == list(range(len(events))), *about)
    check(events[0].type == "response.created" and events[1].type == "response.in_progress", *about)


def texts(api):
    for wire in WIRES:
        whole = api.responses.create(model=f"{wire}/text", input="hi")
        check(whole.output_text == HELLO and whole.status == "completed", wire, whole)
        check(whole.usage.total_tokens == 30 and whole.usage.input_tokens == 21, wire, whole)
        with api.responses.stream(model=f"{wire}/text", input="hi") as stream:
            events = list(stream)
            final = stream.get_final_response()
        check(final.output_text == HELLO and final.usage.total_tokens == 30, wire, final)
        said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        check(said == HELLO, wire, said)
        in_order(events, wire)
        cut = list(api.responses.create(model=f"{wire}/length", input="hi", stream=True))
        check(cut[-1].type == "response.incomplete", wire, cut[-1])
        check(cut[-1].response.incomplete_details.reason == "max_output_tokens", wire, cut[-1])


def tool_loops(api):
    for wire in WIRES:
        for streamed in (False, True):
            items = [{"role": "user", "content": "hi"}]
            for turn in range(3):
                options = dict(model=f"{wire}/loop", input=items, tools=TOOLS, store=False)
                if streamed:
                    with api.responses.stream(**options) as stream:
                        answer = stream.get_final_response()
                else:
                    answer = api.responses.create(**options)
                calls = [item for item in answer.output if item.type == "function_call"]
                items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]
                if not calls:
                    break
                check([json.loads(c.arguments)["city"] for c in calls] == ["Paris", "Rome"], wire, calls)
                items += [{"type": "function_call_output", "call_id": c.call_id, "output": "mild"} for c in calls]
            check(turn == 1 and answer.output_text == HELLO, wire, streamed, answer)


def structured(api):
    for wire in WIRES:
        parsed = api.responses.parse(model=f"{wire}/structured", input="hi", text_format=Person)
        check(parsed.output_parsed == Person(name="Ada", age=36), wire, parsed)
        with api.responses.stream(model=f"{wire}/structured", input="hi", text_format=Person) as stream:
            check(stream.get_final_response().output_parsed == Person(name="Ada", age=36), wire)


def errors(api):
    error = raises(openai.BadRequestError, lambda: api.responses.create(model="unheard-of", input="hi"))
    check(error.code == "smith_required", error)
    error = raises(openai.BadRequestError, lambda: api.responses.create(model="anthropic/text", input=[{"role": "x"}]))
    check(error.param == "input[0]", error.param)
    error = raises(openai.NotFoundError, lambda: api.responses.create(model="anthropic/status-404", input="hi"))
    check("404" in str(error), error)
    error = raises(openai.NotFoundError, lambda: api.responses.retrieve("resp_none"))
    stream = api.responses.create(model="anthropic/fault-half", input="hi", stream=True)
    events = list(stream)
    check(events[-1].type == "response.failed" and events[-1].response.error.message, events[-1])
    error = raises(
        openai.BadRequestError, lambda: api.responses.create(model="anthropic/text", input="hi", background=True)
    )
    check(error.code == "unsupported_background", error)


def a_smith(api):
    first = api.responses.create(model="anthropic/text", input="My name is Ada.", metadata={"k": "v"})
    check(first.id.startswith("resp_") and first.model == "anthropic/text", first)
    check(first.output_text == HELLO and first.output[0].id.startswith("msg_"), first)
    again = api.responses.retrieve(first.id)
    check(again.to_dict() == first.to_dict(), again, first)
    check(api.responses.retrieve("run_" + first.id[5:]).output_text == HELLO, "by the run's id")
    asked = list(api.responses.input_items.list(first.id))
    check(asked[0].content[0].text == "My name is Ada.", asked)

    second = api.responses.create(model="anthropic/text", input="And yours?", previous_response_id=first.id)
    check(second.previous_response_id == first.id, second)
    # Each may be continued more than once, and hears nothing of the others.
    third = api.responses.create(model="anthropic/text", input="And mine?", previous_response_id=first.id)
    refer = [{"type": "item_reference", "id": second.output[0].id}, {"role": "user", "content": "go on"}]
    fourth = api.responses.create(model="anthropic/text", input=refer)
    check(fourth.output_text == HELLO and third.output_text == HELLO, fourth)

    answer = api.responses.create(model="anthropic/structured", input="hi", text={"format": {
        "type": "json_schema", "name": "p", "strict": True, "schema": Person.model_json_schema()}})
    check(Person.model_validate_json(answer.output_text).age == 36, answer)

    check(api.responses.delete(first.id) is None, "deleted")
    raises(openai.NotFoundError, lambda: api.responses.retrieve(first.id))
    raises(openai.NotFoundError, lambda: api.responses.create(
        model="anthropic/text", input="x", previous_response_id=first.id))
    unkept = api.responses.create(model="anthropic/text", input="hi", store=False)
    raises(openai.NotFoundError, lambda: api.responses.retrieve(unkept.id))


def conversations(api):
    conversation = api.conversations.create(items=[{"type": "message", "role": "user", "content": "Hello"}])
    for word in ("one", "two"):
        answer = api.responses.create(model="anthropic/text", input=word, conversation=conversation.id)
        check(answer.conversation.id == conversation.id, answer)
    items = list(api.conversations.items.list(conversation.id, order="asc", limit=2))
    said = [item.content[0].text for item in items]
    check(said == ["Hello", "one", HELLO, "two", HELLO], said)
    check(answer.output[0].id == items[-1].id, answer, items[-1])
    error = raises(openai.NotFoundError, lambda: api.responses.create(
        model="anthropic/text", input="x", conversation="cnv_none"))
    check(error.code == "conversation_not_found", error)


def background(api):
    made = api.responses.create(model="anthropic/text", input="hi", background=True)
    check(made.status in ("queued", "in_progress"), made)
    deadline = time.monotonic() + 10
    while made.status in ("queued", "in_progress") and time.monotonic() < deadline:
        time.sleep(0.05)
        made = api.responses.retrieve(made.id)
    check(made.status == "completed" and made.output_text == HELLO, made)
    check(api.responses.cancel(made.id).status == "completed", "cancelling what has ended is no error")

    slow = api.responses.create(model="anthropic/fault-stall", input="hi", background=True)
    check(api.responses.cancel(slow.id).status == "cancelled", slow)
    check(api.responses.retrieve(slow.id).status == "cancelled", slow)

    events = list(api.responses.create(model="anthropic/text", input="hi", background=True, stream=True))
    in_order(events)
    key = events[0].response.id
    for after in (0, len(events) // 2, len(events) - 2):
        rest = list(api.responses.retrieve(key, stream=True, starting_after=after))
        check([e.to_dict() for e in rest] == [e.to_dict() for e in events[after + 1 :]], after)


def reasoning(api):
    with api.responses.stream(model="anthropic/thinking_tools", input="hi", tools=TOOLS,
                              include=["reasoning.encrypted_content"], store=False) as stream:
        events = list(stream)
        final = stream.get_final_response()
    thought = [item for item in final.output if item.type == "reasoning"]
    check(thought and thought[0].encrypted_content and thought[0].summary[0].text, final)
    said = "".join(e.delta for e in events if e.type == "response.reasoning_summary_text.delta")
    check(said.startswith(thought[0].summary[0].text[:5]), said)
    # What was thought goes back with the next turn, though nothing was kept.
    items = [{"role": "user", "content": "hi"}]
    items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in final.output]
    items += [{"type": "function_call_output", "call_id": item.call_id, "output": "mild"}
              for item in final.output if item.type == "function_call"]
    answer = api.responses.create(model="anthropic/text", input=items, tools=TOOLS, store=False)
    check(answer.output_text == HELLO, answer)


def main():
    texts(client())
    tool_loops(client())
    tool_loops(smiths())
    structured(client())
    errors(client())
    a_smith(smiths())
    a_smith(client(api_key=os.environ["SMITH_TOKEN"]))
    conversations(smiths())
    background(smiths())
    reasoning(client())
    reasoning(smiths())
    print(f"openai {openai.__version__} for Python on Responses: {checks} checks")


main()

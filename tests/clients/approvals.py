"""The `openai` package for Python, unmodified, decides on approvals over both of its wires.

Environment: BASE_URL, SMITH_TOKEN (of a smith that has the tools of mcp_workshop.py).
"""

import os

import openai

api = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["SMITH_TOKEN"], max_retries=0)
SCRIPT = 'measure {"thing": "x"}\n---\nmelt {"thing": "y"}'
checks = 0


def check(holds, about):
    global checks
    assert holds, about
    checks += 1


for decision, expected in [("approve", "y is molten"), ("reject", "")]:
    messages = [{"role": "user", "content": SCRIPT}]
    asked = api.chat.completions.create(model="", messages=messages).choices[0]
    check(asked.finish_reason == "tool_calls", asked)
    [call] = asked.message.tool_calls
    check(call.function.name == "melt" and "::" in call.id, call)
    messages += [asked.message, {"role": "tool", "tool_call_id": call.id, "content": decision}]
    answer = api.chat.completions.create(model="", messages=messages).choices[0]
    check(answer.finish_reason == "stop" and expected in answer.message.content, answer)

for approve, expected in [(True, "y is molten"), (False, "")]:
    asked = api.responses.create(input=SCRIPT)
    check([item.type for item in asked.output] == ["mcp_call", "mcp_approval_request"], asked.output)
    check(asked.output[0].output == "x: 12 cm", asked.output[0])
    request = asked.output[1]
    response = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": approve}
    with api.responses.stream(model="", input=[response], previous_response_id=asked.id) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    check(expected in answer.output_text, answer)
    if approve:
        check("response.mcp_call.completed" in kinds, kinds)
        check(answer.output[0].approval_request_id == request.id, answer.output)

print(f"openai {openai.VERSION}: {checks} checks of approvals")

"""The `openai` and `anthropic` packages for Python, unmodified, with a virtual key.

Environment: BASE_URL, KEY (for `openai-chat/text`, `openai-responses/text` and `anthropic/*`).
"""

import os

import anthropic
import openai

BASE_URL, KEY = os.environ["BASE_URL"], os.environ["KEY"]
HELLO = 'Hello, "wörld" \n😀'
ASK = [{"role": "user", "content": "hi"}]

oai = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
claude = anthropic.Anthropic(base_url=BASE_URL.removesuffix("/v1"), api_key=KEY, max_retries=0)
bearer = anthropic.Anthropic(base_url=BASE_URL.removesuffix("/v1"), auth_token=KEY, max_retries=0)

listed = [model.id for model in oai.models.list()]
assert listed == ["anthropic/text", "openai-chat/text", "openai-responses/text"] or set(listed) == {
    "anthropic/text",
    "openai-chat/text",
    "openai-responses/text",
}, listed

for model in ["openai-chat/text", "anthropic/text"]:
    answer = oai.chat.completions.create(model=model, messages=ASK)
    assert answer.choices[0].message.content == HELLO, answer
    stream = oai.chat.completions.create(model=model, messages=ASK, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == HELLO, text
    answer = oai.responses.create(model=model, input="hi")
    assert answer.output_text == HELLO, answer

for client in [claude, bearer]:
    message = client.messages.create(model="anthropic/text", max_tokens=99, messages=ASK)
    assert message.content[0].text == HELLO, message
    with client.messages.stream(model="openai-chat/text", max_tokens=99, messages=ASK) as stream:
        assert "".join(stream.text_stream) == HELLO

for call in [
    lambda: oai.chat.completions.create(model="gemini/text", messages=ASK),
    lambda: oai.chat.completions.create(model="gemini/text", messages=ASK, stream=True),
    lambda: oai.responses.create(model="gemini/text", input="hi"),
]:
    try:
        call()
    except openai.PermissionDeniedError as error:
        assert error.code == "model_not_allowed" and "gemini/text" in error.message, error.message
    else:
        raise AssertionError("a model that is not the key's")

try:
    claude.messages.create(model="gemini/text", max_tokens=9, messages=ASK)
except anthropic.PermissionDeniedError as error:
    assert error.body["error"]["type"] == "permission_error", error.body
    assert "gemini/text" in error.body["error"]["message"], error.body
else:
    raise AssertionError("a model that is not the key's")

try:
    oai.files.list()
except openai.PermissionDeniedError as error:
    assert error.code == "virtual_key_not_allowed", error.code
else:
    raise AssertionError("files with a key")

wrong = openai.OpenAI(base_url=BASE_URL, api_key=KEY[:-1] + ("A" if KEY[-1] != "A" else "B"), max_retries=0)
try:
    wrong.models.list()
except openai.AuthenticationError as error:
    assert KEY[:-1] not in str(error), "the key is told"
else:
    raise AssertionError("a key that is none")

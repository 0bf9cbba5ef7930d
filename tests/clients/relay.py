"""The other paths of OpenAI's API through the unmodified client."""

import io
import os

from openai import OpenAI

base, token = os.environ["BASE_URL"], os.environ["TOKEN"]
client = OpenAI(base_url=base, api_key=token, max_retries=0)

image = client.images.generate(model="elsewhere/image", prompt="a bell")
assert image.data[0].b64_json == "aGk=", image

sound = io.BytesIO(b"RIFF" + bytes(300_000))
sound.name = "a.wav"
heard = client.audio.transcriptions.create(model="elsewhere/whisper-1", file=sound, language="en")
assert heard.text == "hello", heard

with client.audio.speech.with_streaming_response.create(
    model="elsewhere/tts", voice="alloy", input="hi"
) as spoken:
    assert sum(len(piece) for piece in spoken.iter_bytes()) == 200_000

judged = client.moderations.create(model="elsewhere/omni", input="hi")
assert judged.results == [], judged

text = "".join(
    chunk.choices[0].text
    for chunk in client.completions.create(model="elsewhere/m", prompt="x", stream=True)
    if chunk.choices
)
assert text == "hi", text

named = client.with_options(default_headers={"x-smithgate-provider": "elsewhere"})
assert list(named.batches.list()) == []

# A client whose base is a provider's own API.
through = OpenAI(base_url=f"{base}/passthrough/elsewhere", api_key=token, max_retries=0)
assert list(through.batches.list()) == []
answer = through.completions.create(model="m", prompt="x")
assert answer.choices[0].text == "hi", answer

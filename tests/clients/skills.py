"""The `openai` package for Python, unmodified, on skills.

Environment: BASE_URL, TOKEN (an admin token).
"""

import io
import os
import zipfile

import openai

client = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["TOKEN"], max_retries=0)


def main(description):
    return f"---\nname: greeter\ndescription: {description}\n---\nGreet people.\n".encode()


skill = client.skills.create(
    files=[("greeter/SKILL.md", main("Greets")), ("greeter/notes/tone.txt", b"warm")]
)
assert (skill.object, skill.name, skill.description) == ("skill", "greeter", "Greets"), skill
assert (skill.default_version, skill.latest_version) == (1, 1), skill

try:
    client.skills.create(files=[("greeter/SKILL.md", main("Again"))])
    raise AssertionError("a second skill of one name")
except openai.ConflictError as error:
    assert error.code == "skill_exists", error

packed = io.BytesIO()
with zipfile.ZipFile(packed, "w") as archive:
    archive.writestr("greeter/SKILL.md", main("Greets warmly"))
version = client.skills.versions.create(skill.id, files=("greeter.zip", packed.getvalue()))
assert (version.object, version.version, version.description) == ("skill.version", 2, "Greets warmly"), version
assert client.skills.retrieve(skill.id).default_version == 1
assert client.skills.update(skill.id, default_version="2").description == "Greets warmly"

assert [s.id for s in client.skills.list(limit=1)] == [skill.id]
assert [v.version for v in client.skills.versions.list(skill.id, limit=1)] == [2, 1]
assert [v.version for v in client.skills.versions.list(skill.id, order="asc")] == [1, 2]

names = zipfile.ZipFile(io.BytesIO(client.skills.versions.content.retrieve("1", skill_id=skill.id).read())).namelist()
assert names == ["greeter/SKILL.md", "greeter/notes/tone.txt"], names
content = zipfile.ZipFile(io.BytesIO(client.skills.content.retrieve(skill.id).read()))
assert content.read("greeter/SKILL.md") == main("Greets warmly")

try:
    client.skills.versions.delete("2", skill_id=skill.id)
    raise AssertionError("the default version was deleted")
except openai.ConflictError as error:
    assert error.code == "skill_in_use", error
gone = client.skills.versions.delete("1", skill_id=skill.id)
assert (gone.deleted, gone.version) == (True, "1"), gone
assert client.skills.delete(skill.id).deleted
assert list(client.skills.list()) == []
print("skills: all seen")

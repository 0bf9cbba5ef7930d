"""The `openai` package for Python, unmodified, on embeddings and vector stores.

Environment: BASE_URL, TOKEN (an admin token), MODEL (of embeddings).
"""

import os

import openai

client = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["TOKEN"], max_retries=0)
model = os.environ["MODEL"]

# The client asks for base64 by itself, and reads it back.
made = client.embeddings.create(model=model, input=["a fast car", "an automobile"])
assert [e.index for e in made.data] == [0, 1] and len(made.data[0].embedding) == 64, made
assert made.usage.prompt_tokens > 0, made
assert client.embeddings.create(model=model, input="x", encoding_format="float").data[0].embedding
for wrong, code in (([], "invalid_request"), (["a"] * 2049, "too_many_inputs")):
    try:
        client.embeddings.create(model=model, input=wrong)
        raise AssertionError("taken")
    except openai.BadRequestError as error:
        assert error.code == code, error


def keep(name, text):
    return client.files.create(file=(name, text.encode()), purpose="assistants")


cars = keep("cars.txt", "Our car park has a hundred places.")
pets = keep("pets.md", "# Pets\n\nA dog may come along, if it is quiet.")
store = client.vector_stores.create(
    name="House", file_ids=[cars.id], metadata={"floor": "1"}, extra_body={"embedding_model": model}
)
assert (store.object, store.name, store.metadata) == ("vector_store", "House", {"floor": "1"}), store
assert store.embedding_model == model, store
file = client.vector_stores.files.create_and_poll(
    pets.id,
    vector_store_id=store.id,
    attributes={"team": "blue", "year": 2025},
    chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 50}},
)
assert (file.status, file.attributes) == ("completed", {"team": "blue", "year": 2025}), file
assert file.chunking_strategy.static.max_chunk_size_tokens == 200, file
client.vector_stores.files.poll(cars.id, vector_store_id=store.id)
store = client.vector_stores.retrieve(store.id)
assert (store.status, store.file_counts.completed, store.file_counts.total) == ("completed", 2, 2), store
assert store.usage_bytes > 64 * 4, store


def found(query, **more):
    return [(hit.filename, hit.score) for hit in client.vector_stores.search(store.id, query=query, **more)]


# Not a word in common, but the meaning.
assert found("automobile")[0][0] == "cars.txt", found("automobile")
assert found("dog", max_num_results=1)[0][0] == "pets.md"
by_words = {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}
assert found("automobile", ranking_options=by_words) == []
assert found("the car", ranking_options=by_words)[0][0] == "cars.txt"
both = {"hybrid_search": {"embedding_weight": 0.5, "text_weight": 0.5}, "score_threshold": 0.99}
assert [name for name, _ in found("quiet dog", ranking_options=both)] == ["pets.md"]
team = {"type": "and", "filters": [
    {"type": "eq", "key": "team", "value": "blue"}, {"type": "gte", "key": "year", "value": 2025}]}
assert [name for name, _ in found("car", filters=team)] == ["pets.md"]
hits = client.vector_stores.search(store.id, query=["car", "dog"])
assert {hit.filename for hit in hits} == {"cars.txt", "pets.md"}
assert all(0 <= hit.score <= 1 for hit in hits)

client.vector_stores.files.update(pets.id, vector_store_id=store.id, attributes={"team": "red"})
assert found("car", filters=team) == []
text = client.vector_stores.files.content(pets.id, vector_store_id=store.id)
assert [part.text for part in text] == ["# Pets\n\nA dog may come along, if it is quiet."], text

batch = client.vector_stores.file_batches.create_and_poll(
    store.id, files=[{"file_id": keep("a.txt", "Keys are at the desk.").id, "attributes": {"floor": 0}},
                     {"file_id": keep("b.png", "\x00\x01").id}]
)
assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == ("completed", 1, 1), batch
failed = list(client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed"))
assert [f.last_error.code for f in failed] == ["unsupported_file"], failed
assert len(list(client.vector_stores.files.list(store.id, limit=1))) == 4
assert client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id).status == "cancelled"

assert client.vector_stores.files.delete(pets.id, vector_store_id=store.id).deleted
assert found("dog", ranking_options=by_words) == []
client.files.delete(cars.id)
assert found("car", ranking_options=by_words) == []
assert client.vector_stores.update(store.id, name="Office", metadata={"floor": "2"}).name == "Office"
assert [s.id for s in client.vector_stores.list(limit=1)] == [store.id]
assert client.vector_stores.delete(store.id).object == "vector_store.deleted"
try:
    client.vector_stores.retrieve(store.id)
    raise AssertionError("still there")
except openai.NotFoundError:
    pass
print("retrieval: all seen")

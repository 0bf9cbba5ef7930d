"""Every call is a new one: a key that comes again rightly gets the first call's answer, whatever
became of what that call made."""

import uuid

import schemathesis


@schemathesis.hook
def map_headers(context, headers):
    key = (headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and 1 <= len(key) <= 255:
        headers["Idempotency-Key"] = str(uuid.uuid4())
    return headers

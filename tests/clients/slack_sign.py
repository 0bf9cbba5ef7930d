"""Signs a body as Slack does and checks what was signed elsewhere, by Slack's own package."""

import sys

from slack_sdk.signature import SignatureVerifier

secret, timestamp = sys.argv[1:3]
body = sys.stdin.read()
verifier = SignatureVerifier(secret)
print(verifier.generate_signature(timestamp=timestamp, body=body))
if len(sys.argv) > 3 and not verifier.is_valid(body, timestamp, sys.argv[3]):
    sys.exit("the signature is not Slack's")

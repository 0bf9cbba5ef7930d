"""Mail as others see it: `send` gives stdin to a server by smtplib, `verify` checks the signature of
stdin by dkimpy, `sign` signs it, `parse` reads it with the standard library."""

import email
import email.policy
import json
import smtplib
import sys

import dkim

what, arguments = sys.argv[1], sys.argv[2:]
data = sys.stdin.buffer.read()

if what == "send":
    port, sender, *recipients = arguments
    with smtplib.SMTP("127.0.0.1", int(port), local_hostname="mx.good.test") as server:
        refused = server.sendmail(sender, recipients, data)
    print(json.dumps(refused))
elif what == "verify":
    (record,) = arguments
    answer = dkim.verify(data, dnsfunc=lambda name, timeout=5: record.encode())
    print(json.dumps(answer))
elif what == "sign":
    domain, key = arguments
    with open(key, "rb") as file:
        signature = dkim.sign(
            data, b"s1", domain.encode(), file.read(), include_headers=[b"from", b"subject"]
        )
    sys.stdout.buffer.write(signature + data)
elif what == "parse":
    message = email.message_from_bytes(data, policy=email.policy.default)
    print(
        json.dumps(
            {
                "headers": [[name, str(value)] for name, value in message.items()],
                "text": message.get_body(("plain",)).get_content(),
                "html": message.get_body(("html",)).get_content(),
                "files": [
                    [part.get_filename(), part.get_content_type(), part.get_content().hex()]
                    for part in message.iter_attachments()
                ],
                "defects": [str(defect) for defect in message.defects],
            }
        )
    )

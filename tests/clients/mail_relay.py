"""A mail server that takes what it is given and writes it down, one JSON object a line."""

import asyncio
import base64
import json
import os
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

OUT = os.environ["MAIL_OUT"]
PORT = int(os.environ["PORT"])
busy = {"left": 1}


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        local = address.split("@")[0]
        if local == "gone":
            return "550 5.1.1 <%s>: no such user here" % address
        if local == "spam":
            return "550 5.7.1 refused"
        if local == "busy" and busy["left"] > 0:
            busy["left"] -= 1
            return "451 4.3.2 try again later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope):
        with open(OUT, "a") as out:
            out.write(
                json.dumps(
                    {
                        "from": envelope.mail_from,
                        "to": envelope.rcpt_tos,
                        "data": base64.b64encode(envelope.content).decode(),
                    }
                )
                + "\n"
            )
        if envelope.rcpt_tos[0].startswith("cut@"):
            # Taken, and never said.
            server.transport.abort()
            return "421 gone"
        return "250 2.0.0 Ok"


settings = {}
if "MAIL_CERT" in os.environ:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.environ["MAIL_CERT"], os.environ["MAIL_KEY"])
    if os.environ["MAIL_TLS"] == "tls":
        # It does not see that the connection is TLS already.
        settings = {"ssl_context": context, "auth_require_tls": False}
    else:
        settings = {"tls_context": context, "require_starttls": True}
    settings["auth_required"] = True
    settings["authenticator"] = lambda server, session, envelope, mechanism, data: AuthResult(
        success=(data.login, data.password) == (b"smith", b"pass word"), handled=False
    )
controller = Controller(Handler(), hostname="127.0.0.1", port=PORT, **settings)
controller.start()
asyncio.new_event_loop().run_forever()
sys.exit(0)

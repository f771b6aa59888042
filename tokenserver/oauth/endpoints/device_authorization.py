"""RFC 8628 section 3.1: a device without a browser or a keyboard asks for codes."""

from flask import Response

from tokenserver.clients.metadata import DEVICE_CODE
from tokenserver.oauth import device, resource
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.endpoints.request import Server, authenticated, json_answer, read_form
from tokenserver.oauth.errors import UnauthorizedClient

PAGE = "/device"


def view(server: Server) -> Response:
    form = read_form()
    client = authenticated(server, form)
    if not client.allows(DEVICE_CODE):
        raise UnauthorizedClient
    asked = scopes.askable(client, scopes.parse(form.parameters.get("scope")))
    audience = resource.chosen(server.rooms.issuing.audience_of(client), form.parameters.get("resource"))
    device_code, user_code = server.rooms.devices.start(client, scopes.to_text(asked or ()), audience)
    uri = server.settings.issuer + PAGE
    # Section 3.2
    return json_answer(
        {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": uri,
            "verification_uri_complete": f"{uri}?user_code={user_code}",
            "expires_in": device.LIFETIME,
            "interval": device.INTERVAL,
        }
    )

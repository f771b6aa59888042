"""What REST says to the forms of the console, so that it is translated. Other sentences of validation are about
members of a client's metadata or of a query, and stay English (docs/console.md).
"""

from typing import Final

from tokenserver.web.language import marked

ANSWERS: Final = (
    marked("The request has missing, wrong or unknown fields."),
    marked("The resource was changed meanwhile. Read it again."),
    marked("There is no next key; `tokenserver init` creates it."),
    marked("Verifiers may not know the next key yet. It is ready at {at}; --emergency overrides this."),
    # A new role
    marked("1 to 64 letters, digits and . _ : -."),
    marked("1 to 64 letters, digits and . _ : -, starting with a letter or digit; no UUID, not `verify`."),
    # A client's name, redirect URIs and scope
    marked("One line of printable characters, at most 255."),
    marked("Holds a scope that this server doesn't know."),
    marked("authorization_code and implicit need one."),
    marked("Each once, at most 20."),
    marked("At most 2000 characters."),
    marked("https, but for 127.0.0.1, [::1] and localhost."),
    marked("A private-use scheme is for public clients (RFC 8252)."),
    marked(
        "An absolute URI of https, http on the loopback interface, or a private-use scheme such as "
        "com.example.app:/; without a fragment and without user information."
    ),
    # What is to be explained; a moment, by which the log is searched
    marked("One of /posts/{id}."),
    marked("Not a valid datetime."),
)

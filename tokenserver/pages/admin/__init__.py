"""The admin console: pages over the REST endpoints, for people (docs/adr/0023-admin-console.md).

It is a client of this server like any other. It signs its users in by the authorization code flow, keeps their
tokens on the server, and asks the REST endpoints with them: who may do what is decided there, and nowhere here.
"""

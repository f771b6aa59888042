"""A standalone OAuth 2 / OpenID Connect token server.

The rooms, top to bottom (a room imports only from rooms below it):
`app`, `cli` wire; `auth` is the REST door for signing in; `oauth` the authorization server on the wire;
`identity`, `access`, `clients` the people, their rights and the programs; `tokens` what is issued and revoked;
`audit` what is remembered; `web` how answers look; `storage` SQL and Redis; `config`, `errors`;
and `verify`, which other services install alone.
"""

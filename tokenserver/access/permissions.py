"""The closed list of permissions, and which built-in role holds them at the first start."""

from typing import Final

PERMISSIONS: Final = {
    "clients:read": "See registered clients",
    "clients:write": "Register, change and delete clients",
    "keys:read": "See signing keys, without their private parts",
    "keys:write": "Rotate signing keys",
    "logs:read": "Read the access and audit log",
    "posts:create": "Write posts",
    "posts:delete:any": "Delete anybody's posts",
    "roles:assign": "Give roles to users and take them away",
    "roles:read": "See roles and permissions",
    "roles:write": "Create, change and delete roles",
    "stats:read": "See usage statistics",
    "tokens:introspect": "Introspect tokens that were issued to other clients",
    "users:list": "List and search users",
    "users:read": "See any user",
    "users:write": "Change any user's status, end their sessions, reset their second factors",
}

USER: Final = "user"
ADMIN: Final = "admin"
BUILTIN_ROLES: Final = {
    USER: ("Everybody who registered", frozenset({"posts:create"})),
    "moderator": ("Keeps the posts in order", frozenset({"posts:create", "posts:delete:any", "users:read"})),
    ADMIN: ("May do everything", frozenset(PERMISSIONS)),
}

"""Rights: permissions, roles, who holds them. Decisions look at permissions, never at a role's name."""

"""What people prove themselves with beside the password: an authenticator app, passkeys, recovery codes."""
